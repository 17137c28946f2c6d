"""The passes `ort-static` and `ort-dynamic`: ONNX Runtime's tools under our contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from irtools import optimize
from irtools.cli.main import run
from irtools.data import Dataset, synthesize
from irtools.errors import DataError, UnsupportedError, UsageError
from irtools.model import Model
from irtools.passes.tools import exchange
from irtools.passmanager import PassContext, PassResult, Pipeline
from irtools.targets import RunnerOptions
from irtools.testing import TINY_MODELS, read_model

LENGTH = 8
HUGE = 100.0
"""What the table holds for the padding token, far beyond all other values."""


def text_model(length: str = "sequence") -> Model:
    """Tokens through a table and a product; token 0 is padding, and its row is huge."""
    table = np.random.default_rng(0).uniform(-1, 1, (20, 16)).astype(np.float32)
    table[0] = HUGE
    weight = np.random.default_rng(1).uniform(-1, 1, (16, 4)).astype(np.float32)
    return read_model(
        f"""
        <ir_version: 10, opset_import: ["" : 20]>
        text (
          int64[batch, {length}] input_ids, int64[batch, {length}] attention_mask,
          float[20, 16] table, float[16, 4] w
        ) => (float[batch, {length}, 4] logits) {{
          embedded = Gather <axis = 0> (table, input_ids)
          active = Tanh (embedded)
          scaled = Add (active, embedded)
          product = MatMul (scaled, w)
          mask = Cast <to = 1> (attention_mask)
          axes = Constant <value = int64[1] {{-1}}> ()
          open = Unsqueeze (mask, axes)
          logits = Mul (product, open)
        }}
        """,
        {"table": table, "w": weight},
    )


def texts(*lengths: int) -> Dataset:
    """Texts of these lengths, padded to eight tokens."""
    ids = np.random.default_rng(2).integers(1, 20, (len(lengths), LENGTH))
    mask = (np.arange(LENGTH) < np.array(lengths)[:, None]).astype(np.int64)
    return Dataset({"input_ids": ids * mask, "attention_mask": mask})


def applied(text: str, model: Model, data: Dataset | None = None) -> tuple[Model, PassResult]:
    """Run one pass on a copy, as the manager does, without what it requires."""
    (found,) = Pipeline.parse(text)
    copy = model.clone()
    given = synthesize(model) if data is None else data
    ctx = PassContext.for_model(model, "ort-cpu:isa=vnni", calibration=given, threads=1)
    return copy, found.run(copy.ir, ctx)


def scale_of(model: Model, value: str) -> float:
    """The scale with which a value is quantized."""
    (node,) = (
        n for n in model.ir.graph if n.op_type == "QuantizeLinear" and n.inputs[0].name == value
    )
    return float(node.inputs[1].const_value.numpy())


def sqnr(before: Model, after: Model, data: Dataset) -> float:
    ctx = PassContext.for_model(before, "ort-cpu:isa=vnni", threads=1)
    outputs = []
    for model in (before, after):
        with ctx.runner(model.ir, RunnerOptions(exact=True)) as runner:
            outputs.append(runner.run(dict(data.feeds))["logits"].astype(np.float64))
    noise = np.sum((outputs[0] - outputs[1]) ** 2)
    return float(10 * np.log10(np.sum(outputs[0] ** 2) / noise))


MATMUL = "ort-static:op_types_to_quantize=MatMul"


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_padding_is_not_counted_and_lengths_may_differ(method: str) -> None:
    model, text = text_model(), f"{MATMUL}:calibrate_method={method}"
    after, result = applied(text, model, texts(3, 8, 5, 8))
    assert result.counters == {"num-quantized-weights": 1, "num-quantized-activations": 2}
    # Without padding the values are below 2; with it, beyond 100.
    assert 0 < scale_of(after, "scaled") < 4.5 / 255
    assert result.notes == ()


def test_where_padding_cannot_be_cut_off_samples_are_left_out() -> None:
    model = text_model(str(LENGTH))
    after, result = applied(MATMUL, model, texts(3, 8, 5, 8))
    assert scale_of(after, "scaled") < 4.5 / 255
    assert result.notes == (
        "2 samples left out: they hold padding that cannot be cut off, and ort-static would count "
        "it",
    )
    with pytest.raises(DataError, match="all 2 samples hold padding that cannot be cut off"):
        applied(MATMUL, model, texts(3, 5))


def test_what_callers_know_stays() -> None:
    model = text_model()
    model.ir.metadata_props["author"] = "A. Author"
    after, _ = applied("ort-static:pre_process=true", model, texts(8, 8))
    assert after.interface == model.interface
    assert after.interface.metadata == {"author": "A. Author"}
    assert after.opset == model.opset
    after.verify(interface=model.interface)


@pytest.mark.parametrize("name", TINY_MODELS)
@pytest.mark.parametrize("text", ["ort-static", "ort-static:per_channel=true", "ort-dynamic"])
def test_outputs_are_close(name: str, text: str) -> None:
    model = TINY_MODELS[name]()
    data = synthesize(model)
    after, result = applied(text, model, data)
    assert result.modified
    assert sqnr(model, after, data) > 20


def test_options_reach_the_tool() -> None:
    model = TINY_MODELS["mlp"]()

    def weight_scales(text: str) -> list[tuple[int, ...]]:
        after, _ = applied(text, model)
        found = after.ir.graph.initializers.items()
        return sorted(tuple(v.shape.numpy()) for n, v in found if n in ("w1_scale", "w2_scale"))

    assert weight_scales("ort-static") == [(), ()]
    assert weight_scales("ort-static:per_channel=true") == [(8,), (64,)]

    def dtype(text: str, name: str) -> str:
        return applied(text, model)[0].ir.graph.initializers[name].dtype.name

    assert dtype("ort-static", "x_zero_point") == "UINT8"
    assert dtype("ort-static:activation_type=qint8", "x_zero_point") == "INT8"
    assert dtype("ort-static", "w1_quantized") == "INT8"
    assert dtype("ort-static:weight_type=quint8", "w1_quantized") == "UINT8"
    narrow = applied("ort-static:reduce_range=true", model)[0].ir.graph.initializers["w1_quantized"]
    assert np.abs(narrow.const_value.numpy().astype(int)).max() <= 64


def test_percentiles_and_averages_are_narrower() -> None:
    model = TINY_MODELS["mlp"]()
    data = Dataset({"x": np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)})
    scales = [
        scale_of(applied(f"ort-static{options}", model, data)[0], "x")
        for options in (
            "",
            ":calibrate_method=percentile:percentile=90",
            ":moving_average=true",
        )
    ]
    assert scales[1] < 0.6 * scales[0] and scales[2] < 0.9 * scales[0]


def operators(model: Model) -> set[str]:
    return {node.op_type for node in model.ir.graph}


def test_formats_and_excluded_nodes() -> None:
    model = TINY_MODELS["mlp"]()
    on_integers, _ = applied("ort-static:quant_format=qoperator", model)
    assert {"QLinearMatMul", "QGemm"} <= operators(on_integers)
    spared, result = applied("ort-dynamic:nodes_to_exclude=sum:pre_process=false", model)
    assert operators(spared) >= {"MatMulInteger", "Add", "Relu"}
    assert result.counters["num-quantized-weights"] == 2
    with pytest.raises(UsageError, match="nodes-to-exclude is 'nothing\\*', which no node is call"):
        applied("ort-dynamic:nodes_to_exclude=nothing*", model)


@pytest.mark.parametrize("text", ["ort-static:per_channel=true", "ort-dynamic"])
def test_attention_of_the_standard_is_not_taken_for_another(text: str) -> None:
    model = read_model(
        """
        <ir_version: 11, opset_import: ["" : 23]>
        g (float[batch, 8, 16] x, float[16, 16] w) => (float[batch, 8, 16] logits) {
          q = MatMul (x, w)
          logits = Attention <q_num_heads = 2, kv_num_heads = 2> (q, x, x)
        }
        """,
        {"w": np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)},
    )
    data = synthesize(model)
    after, result = applied(text, model, data)
    assert result.counters["num-quantized-weights"] == 1
    assert "Attention" in operators(after) and sqnr(model, after, data) > 25


def test_attention_may_be_left_in_float32() -> None:
    model = read_model(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[batch, 8, 16] x, float[16, 16] w) => (float[batch, 8, 8] logits) {
          a = MatMul (x, w)
          t = Transpose <perm = [0, 2, 1]> (x)
          logits = MatMul (a, t)
        }
        """,
        {"w": np.eye(16, dtype=np.float32)},
    )
    counted = [
        applied(f"{MATMUL}{rest}", model)[1].counters["num-quantized-activations"]
        for rest in ("", ":matmul_const_b_only=true")
    ]
    assert counted[0] > counted[1] == 2


def test_new_nodes_say_what_made_them() -> None:
    model = TINY_MODELS["mlp"]()
    after, _ = applied("ort-dynamic", model)
    made = [n for n in after.ir.graph if n.op_type == "DynamicQuantizeLinear"]
    assert {n.metadata_props["pkg.irtools.rule"] for n in made} == {"ort-dynamic"}


def test_what_is_quantized_stays() -> None:
    once, _ = applied("ort-static", TINY_MODELS["mlp"]())
    twice, result = applied("ort-dynamic", once)
    assert not result.modified and twice.text() == once.text()
    assert result.notes == (
        "something in the model is quantized already: ort-dynamic leaves it alone",
    )


def test_a_model_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_MOST_BYTES", 1000)
    with pytest.raises(UnsupportedError, match="ort-static takes models of less than 2 GiB"):
        applied("ort-static", TINY_MODELS["mlp"]())


def test_weights_that_callers_replace_are_refused() -> None:
    model = TINY_MODELS["mlp"]()
    model.ir.graph.inputs.append(model.ir.graph.initializers["w1"])
    with pytest.raises(UnsupportedError, match=r"callers may replace.*: w1"):
        applied("ort-dynamic", model, synthesize(TINY_MODELS["mlp"]()))


def test_drawn_data_is_named() -> None:
    model = TINY_MODELS["mlp"]()
    (found,) = Pipeline.parse("ort-static")
    copy = model.clone()
    result = found.run(copy.ir, PassContext.for_model(model, "ort-cpu:isa=vnni", threads=1))
    assert "ranges come from synthetic data" in result.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ort-static:calibrate_method=kl", "is 'kl', expected minmax|entropy|percentile"),
        ("ort-static:activation_type=int8", "is 'int8', expected quint8|qint8"),
        ("ort-static:percentile=20", "percentile is 20, expected more than 50 and at most 100"),
        (
            "ort-static:moving_average=true:calibrate_method=entropy",
            "needs calibrate-method=minmax",
        ),
        ("ort-dynamic:per_chanel=true", "has no option 'per_chanel'; did you mean 'per-channel'?"),
    ],
)
def test_wrong_options_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        Pipeline.parse(text)
    assert said in str(error.value)


def test_failures_of_a_tool_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        print("noise")
        raise KeyError("inner")

    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", fail)
    with pytest.raises(UnsupportedError, match=r"^ort-dynamic failed: KeyError: 'inner'$"):
        applied("ort-dynamic", TINY_MODELS["mlp"]())


def test_as_a_user_types_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "model.onnx", tmp_path / "small.onnx"
    TINY_MODELS["mlp"]().save(source)
    np.savez(tmp_path / "calib.npz", x=synthesize(TINY_MODELS["mlp"]()).feeds["x"])
    calibration = ("--calibrate", str(tmp_path / "calib.npz"))
    passes = ("--passes", "cleanup,ort-static:per_channel=true")
    code = run(["optimize", str(source), *passes, *calibration, "-o", str(target), "--no-bench"])
    said = capfd.readouterr()
    assert code == 0, said.err
    assert said.out == "" and "Please consider" not in said.err
    assert "x smaller" in said.err
    assert "QuantizeLinear" in {n.op_type for n in onnx.load(target).graph.node}


def test_it_calibrates_where_results_are_kept_between_runs(tmp_path: Path) -> None:
    data = texts(8, 5, 3, 6)
    made = [
        optimize(
            text_model(), "ort-static", calibration=data, bench=None, check=False, cache=tmp_path
        )
        for _ in range(2)
    ]
    first, second = (one.model.fingerprint() for one in made)
    assert first == second and "num-quantized" in "".join(made[0].rows[1].counters)
