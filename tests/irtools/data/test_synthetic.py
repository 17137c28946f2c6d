"""Data drawn from signatures."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from irtools.data import SyntheticSettings, fit_dataset, synthesize
from irtools.errors import DataError


def model(inputs: str, body: str, outputs: str = "float[n] y") -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {body}'
    )


def text_model() -> ir.Model:
    return model(
        "int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask, "
        "int64[batch, sequence] token_type_ids, int64[batch, sequence] position_ids",
        "<float[5000,2] words, float[2,2] types> { w = Gather (words, input_ids) "
        "i = Identity (token_type_ids) t = Gather (types, i) y = Add (w, t) }",
    )


def test_text_inputs_are_plausible() -> None:
    data = synthesize(text_model(), SyntheticSettings(samples=20, sequence=16, seed=3))
    ids, mask = data.feeds["input_ids"], data.feeds["attention_mask"]
    assert ids.shape == (20, 16)
    assert ids.dtype == np.int64
    assert 1000 <= ids.min() < ids.max() < 5000
    lengths = mask.sum(axis=1)
    assert lengths[0] == 16
    assert len(set(lengths.tolist())) > 3
    assert (np.sort(mask, axis=1)[:, ::-1] == mask).all()
    assert not data.feeds["token_type_ids"].any()
    assert data.feeds["position_ids"][1].tolist() == list(range(16))
    assert data.synthetic
    assert fit_dataset(data, text_model()).notes == ()


def test_same_seed_same_data() -> None:
    first, again = (synthesize(text_model(), SyntheticSettings(seed=1)) for _ in range(2))
    other = synthesize(text_model(), SyntheticSettings(seed=2))
    assert first.digest == again.digest != other.digest


def test_named_sizes() -> None:
    sizes = {"sequence": 5}
    data = synthesize(text_model(), SyntheticSettings(samples=2, sizes=sizes, vary_lengths=False))
    assert {array.shape for array in data.feeds.values()} == {(2, 5)}
    assert data.feeds["attention_mask"].all()


@pytest.mark.parametrize(("declared", "marks"), [("bool", 0), ("int64", 1), ("int32", 1)])
def test_padding_masks_leave_something_to_read(declared: str, marks: int) -> None:
    """Flags that mark padding are PyTorch's, numbers that mark what is read are Keras's."""
    padded = model(
        f"float[n,s,2] x, {declared}[n,s] src_key_padding_mask",
        "{ m = Cast <to = 1> (src_key_padding_mask) y = ReduceSum <keepdims = 0> (m) }",
    )
    feeds = synthesize(padded, SyntheticSettings(samples=9, sequence=16)).feeds
    read = feeds["src_key_padding_mask"] == marks
    assert read.any(axis=1).all() and not read.all()
    assert (np.sort(read, axis=1)[:, ::-1] == read).all()


def test_a_mask_for_all_heads_and_queries_is_no_picture() -> None:
    masked = model(
        "int64[n,s] ids, float[n,1,1,s] mask", "{ i = Cast <to = 1> (ids) y = Add (i, mask) }"
    )
    feeds = synthesize(masked, SyntheticSettings(samples=2, sequence=9)).feeds
    assert feeds["ids"].shape == (2, 9) and feeds["mask"].shape == (2, 1, 1, 9)


def test_a_band_of_frequencies_is_one_of_a_voice() -> None:
    band = model(
        "float[n,4] audio, float fmin, float fmax",
        "{ a = Sub (audio, fmin) b = Div (a, fmax) y = Relu (b) }",
        "float[n,4] y",
    )
    feeds = synthesize(band, SyntheticSettings(samples=3)).feeds
    low, high = (set(np.unique(feeds[name]).tolist()) for name in ("fmin", "fmax"))
    assert (low, high) == ({50.0}, {2000.0})


def test_one_number_per_sample_is_above_zero() -> None:
    noisy = model("float[n,4] x, float[n] sigma", "{ l = Log (sigma) y = Identity (x) }")
    feeds = synthesize(noisy, SyntheticSettings(samples=40)).feeds
    assert feeds["sigma"].shape == (40,) and 0 < feeds["sigma"].min() < feeds["sigma"].max() <= 1
    assert feeds["x"].min() < 0


def test_images_are_in_range_and_fixed_sizes_are_kept() -> None:
    data = synthesize(
        model("float[n,3,8,w] pixel_values", "{ y = Relu (pixel_values) }"),
        SyntheticSettings(samples=4, image=12),
    )
    pixels = data.feeds["pixel_values"]
    assert pixels.shape == (4, 3, 8, 12)
    assert pixels.dtype == np.float32
    assert 1 < np.abs(pixels).max() <= 2.5


def test_fixed_batch_size_gets_whole_batches() -> None:
    data = synthesize(model("float[4,3] x", "{ y = Relu (x) }"), SyntheticSettings(samples=6))
    assert len(data) == 8


def test_integers_that_only_compute_are_flags() -> None:
    data = synthesize(model("int64[n,3] x", "{ y = Cast <to = 1> (x) }"))
    assert set(np.unique(data.feeds["x"])) == {0, 1}


def test_small_tables_are_never_left() -> None:
    data = synthesize(model("int32[n] kind", "<float[2,3] t> { y = Gather (t, kind) }"))
    assert data.feeds["kind"].max() <= 1


def test_integers_that_decide_a_size_are_one_small_number() -> None:
    drawn = synthesize(
        model("float[n,4] x, int64[1] k", "{ y, places = TopK (x, k) }", "float[n,k] y")
    ).feeds["k"]
    assert drawn.shape == (32,) and 1 <= drawn.min() == drawn.max() <= 4


def test_places_without_a_known_table_are_the_first_two() -> None:
    data = synthesize(model("int64[n] i, float[k] x", "{ y = Gather (x, i) }"))
    assert set(np.unique(data.feeds["i"])) == {0, 1}


def test_texts_are_short_words() -> None:
    texts = synthesize(model("string[n] s", "{ y = Identity (s) }", "string[n] y")).feeds["s"]
    assert texts.dtype == object and all(isinstance(text, str) and text for text in texts)


REFUSED = {
    "unknown rank": ("float t", "{ y = Relu (t) }", "has no known rank"),
    "past": ("float[n,2,past_length,4] past", "{ y = Relu (past) }", "how long 'past_length'"),
    "memory": ("float[n,99999999] x", "{ y = Relu (x) }", "would take 3199999968 elements"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_invented_is_refused_with_the_reason(case: str) -> None:
    inputs, body, reason = REFUSED[case]
    found = model(inputs, body)
    if case == "unknown rank":
        found.graph.inputs[0].shape = None
    with pytest.raises(DataError, match=reason):
        synthesize(found)


def test_no_inputs() -> None:
    with pytest.raises(DataError, match="no inputs"):
        synthesize(model("", "{ y = Constant <value_floats = [1.0]> () }"))


def test_sequences_are_no_longer_than_the_positions_that_the_model_holds() -> None:
    short = model(
        "int64[n, s] input_ids",
        "<float[9,2] words, int64[1,5] places = {0, 1, 2, 3, 4}, int64[1] zero, int64[1] end> {"
        " w = Gather (words, input_ids) p = Slice (places, zero, end) y = Cast <to = 1> (p) }",
    )
    assert synthesize(short).feeds["input_ids"].shape == (32, 5)
    assert synthesize(short, SyntheticSettings(sequence=3)).feeds["input_ids"].shape == (32, 3)


def test_sums_of_names_are_sized() -> None:
    data = synthesize(
        model('float[n,2,"past + 1",4] past', "{ y = Relu (past) }"),
        SyntheticSettings(sizes={"past": 6}),
    )
    assert data.feeds["past"].shape[2] == 7


def roberta(rows: int, padding: int = 1, body: str = "") -> ir.Model:
    """Positions as RoBERTa computes them: cumsum(ids != padding) * (ids != padding) + padding."""
    counting = body or (
        f"pad = Constant <value_int = {padding}> () same = Equal (input_ids, pad) "
        "kept = Not (same) k = Cast <to = 6> (kept) "
        "axis = Constant <value_int = 1> () c = CumSum (k, axis) "
        "m = Mul (c, k) w = Cast <to = 7> (m) places = Add (w, pad)"
    )
    ones = ", ".join(["1.0"] * 2 * rows)
    return model(
        "int64[n, s] input_ids",
        f"<float[{rows},2] positions = {{{ones}}}> {{ {counting} y = Gather (positions, places) }}",
    )


@pytest.mark.parametrize(("rows", "padding", "length"), [(12, 1, 10), (12, 0, 11), (514, 1, 64)])
def test_computed_positions_stay_inside_their_table(rows: int, padding: int, length: int) -> None:
    found = synthesize(roberta(rows, padding))
    assert found.feeds["input_ids"].shape == (32, length)
    said = f"synthetic sequences are {length} long, not 64: the model holds no more positions"
    assert found.notes == ((f"{said} (positions: {rows} rows)",) if length < 64 else ())
    short = synthesize(roberta(rows, padding), SyntheticSettings(sequence=5))
    assert short.feeds["input_ids"].shape == (32, 5) and short.notes == ()


def test_positions_taken_by_gathernd_stay_inside_their_table() -> None:
    whisper = model(
        "int64[n, s] input_ids",
        f"<float[9,2] places = {{{', '.join(['1.0'] * 18)}}}, int64[s,1] rows> {{"
        "shape = Shape (input_ids) one = Constant <value_int = 1> () "
        "zero = Constant <value_int = 0> () length = Gather (shape, one) "
        "all = Range (zero, length, one) last = Constant <value_ints = [1]> () "
        "rows = Unsqueeze (all, last) y = GatherND (places, rows) }",
        "float[s, 2] y",
    )
    assert synthesize(whisper).feeds["input_ids"].shape == (32, 9)


def test_the_longest_sequence_runs_and_one_more_does_not() -> None:
    found = roberta(12)
    length = synthesize(found).feeds["input_ids"].shape[1]
    runner = ReferenceEvaluator(ir.to_proto(found))
    assert runner.run(None, {"input_ids": np.full((2, length), 5)})[0].shape == (2, 10, 2)
    with pytest.raises(IndexError):
        runner.run(None, {"input_ids": np.full((2, length + 1), 5)})


@pytest.mark.parametrize(
    ("counting", "length"),
    [
        # A range up to the size of the input, from an offset.
        (
            "shape = Shape (input_ids) i = Constant <value_int = 1> () s = Gather (shape, i) "
            "zero = Constant <value_int = 0> () r = Range (zero, s, i) "
            "two = Constant <value_int = 2> () places = Add (r, two)",
            10,
        ),
        # Clipped to the table: no length is too long.
        (
            "i = Constant <value_int = 1> () o = CumSum (input_ids, i) "
            "low = Constant <value_int = 0> () high = Constant <value_int = 11> () "
            "places = Clip (o, low, high)",
            64,
        ),
        # Computed from the ids themselves: nothing is known, so nothing is claimed.
        ("i = Constant <value_int = 1> () places = CumSum (input_ids, i)", 64),
    ],
    ids=["range", "clipped", "unknown"],
)
def test_other_ways_to_count_positions(counting: str, length: int) -> None:
    assert synthesize(roberta(12, body=counting)).feeds["input_ids"].shape == (32, length)
