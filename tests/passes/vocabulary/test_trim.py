"""The pass `trim-vocabulary` through the pipeline: model, files and data that fit each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

from irtools import OptimizeResult, optimize
from irtools.data import DataSettings
from irtools.driver.companions import companions_next_to
from irtools.errors import DataError, OptionError, UnsupportedError, UsageError
from irtools.model import Model
from irtools.passmanager import PassContext, Pipeline

from .conftest import TEXTS, classifier, make_wordpiece


def run(
    task: Path,
    text: str = "trim-vocabulary",
    calibration: str = "data/half.jsonl",
    *,
    check: bool = False,
) -> OptimizeResult:
    return optimize(
        task / "model.onnx",
        text,
        calibration=str(task / calibration),
        evaluation=str(task / "data/all.jsonl"),
        bench=None,
        check=check,
        threads=1,
        reproducer=False,
        data=DataSettings(tokenizer=task),
    )


def logits(model: ir.Model, ids: list[list[int]]) -> np.ndarray:
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feeds = {"input_ids": np.array(ids), "attention_mask": np.ones_like(np.array(ids))}
    return session.run(None, feeds)[0]


def test_model_and_tokenizer_give_what_they_gave_together(task: Path) -> None:
    done = run(task)
    old = Tokenizer.from_file(str(task / "tokenizer.json"))
    new = Tokenizer.from_str(done.model.companions["tokenizer.json"].decode())
    assert new.get_vocab_size() < old.get_vocab_size()
    table = done.model.ir.graph.initializers["w"]
    assert table.shape == (new.get_vocab_size(), 16)
    original = ir.load(task / "model.onnx")
    for text in TEXTS[:4]:
        before, after = old.encode(text).ids, new.encode(text).ids
        np.testing.assert_array_equal(logits(done.model.ir, [after]), logits(original, [before]))


def test_the_report_measures_text_in_the_new_tokens(task: Path) -> None:
    """Every token of the calibration texts is kept, so on them nothing is lost."""
    done = run(task, calibration="data/all.jsonl", check=True)
    first, last = done.rows[0], done.rows[-1]
    assert last.counters["num-removed-tokens"] > 0
    assert last.metric.value == first.metric.value
    assert last.fidelity.agreement == 1.0
    assert "numerics" in last.checks


def test_passes_behind_it_see_the_new_tokens(task: Path) -> None:
    done = run(task, "trim-vocabulary,int8:min-size=0:embeddings=4:mode=static:least-sqnr=none")
    assert done.rows[-1].counters["num-quantized-embedding"] == 1
    assert not done.report.calibration.synthetic


def test_files_next_to_the_model_match(task: Path) -> None:
    done = run(task)
    files = done.deployed.companions
    assert set(files) == {"tokenizer.json", "config.json", "tokenizer_config.json"}
    size = done.model.ir.graph.initializers["w"].shape[0]
    config = json.loads(files["config.json"])
    assert config["vocab_size"] == size and config["pad_token_id"] == 0
    assert config["hidden_size"] == 16 and config["eos_token_id"] is None


def test_remap_keeps_the_tokenizer(task: Path) -> None:
    done = run(task, "trim-vocabulary:mode=remap")
    assert not done.model.companions
    old = Tokenizer.from_file(str(task / "tokenizer.json"))
    original = ir.load(task / "model.onnx")
    ids = old.encode(TEXTS[0]).ids
    np.testing.assert_array_equal(logits(done.model.ir, [ids]), logits(original, [ids]))
    gone = [i for i in old.encode(TEXTS[6]).ids if i not in set(_mapped(done.model.ir))]
    assert gone
    np.testing.assert_array_equal(
        logits(done.model.ir, [gone]),
        logits(original, [[old.token_to_id("[UNK]")] * len(gone)]),
    )


def _mapped(model: ir.Model) -> list[int]:
    """Old ids that have a row of their own."""
    numbers = model.graph.initializers["input_ids_map"].const_value.numpy()
    unknown = numbers[1]
    return [i for i, new in enumerate(numbers) if new != unknown or i == 1]


def test_arrays_of_tokens_choose_remap_and_say_so(task: Path) -> None:
    old = Tokenizer.from_file(str(task / "tokenizer.json"))
    old.enable_padding()
    rows = [e.ids for e in old.encode_batch(TEXTS[:4])]
    path = task / "data" / "half.npz"
    np.savez(path, input_ids=np.array(rows), attention_mask=np.ones_like(np.array(rows)))
    done = run(task, calibration="data/half.npz")
    assert not done.model.companions
    assert any("half.npz holds tokens, not text" in note for note in done.rows[-1].notes)
    with pytest.raises(UnsupportedError, match=r"half\.npz holds tokens.*use mode=remap"):
        run(task, "trim-vocabulary:mode=tokenizer", calibration="data/half.npz")


def test_outputs_per_token_choose_remap(task: Path) -> None:
    ir.save(classifier(make_wordpiece().get_vocab_size(), per_token=True), task / "model.onnx")
    done = optimize(
        task / "model.onnx",
        "trim-vocabulary",
        calibration=str(task / "data/half.jsonl"),
        bench=None,
        check=False,
        reproducer=False,
        data=DataSettings(tokenizer=task),
    )
    assert not done.model.companions and done.rows[-1].modified
    assert any("something for each token" in note for note in done.rows[-1].notes)


@pytest.mark.parametrize(("tied", "counter"), [(True, "num-skipped-tied")])
def test_tied_tables_are_left_alone(task: Path, tied: bool, counter: str) -> None:
    model = classifier(make_wordpiece().get_vocab_size(), tied=tied)
    result = Pipeline("trim-vocabulary").passes[0].run(model, _context())
    assert not result.modified and result.counters == {counter: 1}
    assert "also read by" in result.notes[0]


def test_without_a_tokenizer_it_is_left_alone() -> None:
    result = Pipeline("trim-vocabulary").passes[0].run(classifier(50), _context())
    assert result.counters == {"num-skipped-no-tokenizer": 1}


def _context() -> PassContext:
    def absent(*_: object) -> object:
        raise AssertionError("nothing is measured here")

    return PassContext(absent, absent, absent, absent)


def test_a_second_run_finds_nothing(task: Path) -> None:
    for mode in ("tokenizer", "remap"):
        done = run(task, f"trim-vocabulary:mode={mode},trim-vocabulary:mode={mode}")
        assert done.rows[1].modified and not done.rows[2].modified


def test_the_most_frequent_tokens(task: Path) -> None:
    few = run(task, "trim-vocabulary:keep=1", "data/all.jsonl").rows[-1].counters
    many = run(task, "trim-vocabulary", "data/all.jsonl").rows[-1].counters
    often = run(task, "trim-vocabulary:min-count=5", "data/all.jsonl").rows[-1].counters
    removed = [found["num-removed-tokens"] for found in (few, often, many)]
    assert removed == sorted(set(removed), reverse=True)


def test_tokens_of_a_file(task: Path) -> None:
    whole = task / "data" / "all.jsonl"
    by_texts = run(task, f"trim-vocabulary:keep={whole}")
    by_data = run(task, calibration="data/all.jsonl")
    for result in (by_texts, by_data):
        del result.model.ir.metadata_props["irtools.history"]  # Which has the pipeline's text.
    assert by_texts.model.fingerprint() == by_data.model.fingerprint()
    tokens = task / "keep.txt"
    tokens.write_text("wheat\n##s\n")
    kept = run(task, f"trim-vocabulary:keep={tokens}")
    names = Tokenizer.from_str(kept.model.companions["tokenizer.json"].decode()).get_vocab()
    assert "wheat" in names and "interest" not in names
    tokens.write_text("wheat\nnonsense\n")
    with pytest.raises(DataError, match="'nonsense', which is not a token"):
        run(task, f"trim-vocabulary:keep={tokens}")


@pytest.mark.parametrize("text", ["trim-vocabulary:min-count=0", "trim-vocabulary:keep=0"])
def test_options_that_do_not_go(text: str) -> None:
    with pytest.raises((OptionError, ValueError)):
        Pipeline(text)


def test_companions_never_replace_those_of_the_source(task: Path, tmp_path: Path) -> None:
    model = str(task / "model.onnx")
    files = {"tokenizer.json": b"{}"}
    with (
        pytest.raises(UsageError, match="folder of its own"),
        companions_next_to(files, task, model, force=True),
    ):
        pass
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").write_text("something else")
    with (
        pytest.raises(UsageError, match="--force"),
        companions_next_to(files, other, model, force=False),
    ):
        pass
    with companions_next_to(files, other, model, force=True) as paths:
        assert (other / "tokenizer.json").read_text() == "something else"
    assert [p.read_bytes() for p in paths] == [b"{}"]
    assert sorted(p.name for p in other.iterdir()) == ["tokenizer.json"]


def test_a_clone_keeps_its_companions(task: Path) -> None:
    model = Model.load(task / "model.onnx")
    model.companions = {"tokenizer.json": b"x"}
    assert model.clone().companions == {"tokenizer.json": b"x"}
