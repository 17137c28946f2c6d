"""Block by block, without labels: what each block learns, and the command."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irtools.cli.main import run
from irtools.errors import DataError, IrtoolsError, OptionError, UsageError
from irtools.passes.quantization.ranges.grids import find_grid
from irtools.plugins import NullProgress
from irtools.students import LayerwiseRequest, LayerwiseResult, TrainingSettings, find_trainer

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

TRAINING = TrainingSettings(epochs=12, batch=8, learning_rate=3e-3, quantize="ternary")


@pytest.fixture
def texts(data: tuple[str, str], tmp_path: Path) -> tuple[str, str]:
    """The rows of `data` without their labels, and with them."""
    rows = [json.loads(line) for line in Path(data[0]).read_text().splitlines()]
    plain = tmp_path / "plain.jsonl"
    plain.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows))
    return str(plain), data[1]


@pytest.fixture
def distilled(
    teacher: Path, texts: tuple[str, str], tmp_path: Path
) -> Callable[..., LayerwiseResult]:
    """Return a function that trains, with some fields of the request replaced."""

    def make(**changes: object) -> LayerwiseResult:
        request = LayerwiseRequest(
            str(teacher), str(teacher), *texts, tmp_path / "work", training=TRAINING
        )
        return find_trainer().layerwise(dataclasses.replace(request, **changes), NullProgress())  # type: ignore[arg-type]

    return make


def test_every_block_comes_closer_to_the_teacher_s(distilled, teacher: Path) -> None:
    from irtools.frontends.students.networks.checkpoints import load_network
    from irtools.frontends.students.networks.rounded import rounded_layers

    found = distilled()
    assert [block.taught_by for block in found.blocks] == [(0, 0), (1, 1), (2, 2)]
    assert all(0 < block.after < 0.9 * block.before for block in found.blocks), found.blocks
    _, untrained, layerwise = found.networks
    assert layerwise.kept_db > untrained.kept_db + 1
    assert layerwise.evaluation.name == "accuracy"
    student, before = load_network(found.folder), load_network(teacher)
    for block in student.bert.encoder.layer:
        for layer in rounded_layers(block, "ternary").values():
            assert find_grid(layer.weight.detach().numpy(), 0) is not None
    # What is outside of blocks is the teacher's.
    assert torch.equal(student.classifier.weight, before.classifier.weight)
    assert torch.equal(
        student.bert.embeddings.word_embeddings.weight,
        before.bert.embeddings.word_embeddings.weight,
    )


def test_a_block_is_taught_by_the_teacher_s_own_hidden_states(teacher: Path, texts) -> None:
    """The targets are what the whole teacher gives there, padding and masks included."""
    from irtools.data import DataSettings, load_dataset, signature_of
    from irtools.frontends.students.networks.checkpoints import load_network
    from irtools.frontends.students.training.blocks import advance, captured
    from irtools.frontends.students.training.comparison import batches_of

    network = load_network(teacher)
    data = load_dataset(texts[0], signature_of(network, teacher), DataSettings(tokenizer=teacher))
    batch = next(iter(batches_of(data, 8)))
    assert "labels" not in batch and (batch["attention_mask"] == 0).any()
    with torch.no_grad():
        known = network(**batch, output_hidden_states=True).hidden_states
    state, layers = captured(network, batch), network.bert.encoder.layer
    torch.testing.assert_close(state.hidden, known[0])
    torch.testing.assert_close(advance(list(layers[:2]), range(2), state), known[2])
    state.hidden = known[2]
    torch.testing.assert_close(advance([layers[2]], [2], state), known[3])


def test_a_student_of_fewer_layers(distilled) -> None:
    training = dataclasses.replace(TRAINING, quantize=None)
    found = distilled(student="layers=0,2", training=training)
    assert [block.taught_by for block in found.blocks] == [(0, 1), (2, 2)]
    # The second is the teacher's last block, given what that is given: nothing is to be learnt.
    assert found.blocks[0].after < found.blocks[0].before
    assert (found.blocks[1].before, found.blocks[1].steps) == (0, 0)


@pytest.mark.slow
def test_a_block_that_training_makes_worse_stays(distilled) -> None:
    found = distilled(training=dataclasses.replace(TRAINING, learning_rate=1e5))
    assert all(block.after == block.before for block in found.blocks)
    assert any("3 blocks stayed as before" in note for note in found.notes)
    _, untrained, layerwise = found.networks
    assert layerwise.kept_db == untrained.kept_db


@pytest.mark.slow
def test_stopped_and_resumed(distilled, monkeypatch) -> None:
    """Blocks that were trained are taken as they are; the result is that of a run at once."""
    from irtools.frontends.students import layerwise as module
    from irtools.frontends.students.networks.checkpoints import load_network

    real, calls = module.fit_block, []

    def stop(*given: object) -> object:
        calls.append(given[1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(module, "fit_block", stop)
    with pytest.raises(KeyboardInterrupt):
        distilled()
    with pytest.raises(UsageError, match="--resume continues it"):
        distilled()
    found = distilled(resume=True)
    assert calls == [0, 1, 1, 2]
    whole = distilled(work=found.folder.parents[2] / "other")
    pairs = zip(
        load_network(found.folder).parameters(),
        load_network(whole.folder).parameters(),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"student": "hidden=16,layers=3"}, UsageError, "width 16 and those of the teacher 32"),
        ({"layer_map": (0, 1)}, UsageError, "layer-map 0,1 does not fit: 3 numbers that rise to 2"),
        ({"student": "layers=0,2", "layer_map": (2, 1)}, UsageError, "layer-map 2,1 does not fit"),
        ({"student": "layers=0,2", "layer_map": (0, 1)}, UsageError, "2, the teacher's last block"),
    ],
)
def test_what_does_not_fit_is_refused(
    distilled, tmp_path: Path, changes, error: type[IrtoolsError], message
) -> None:
    with pytest.raises(error, match=message):
        distilled(**changes)
    assert not (tmp_path / "work").exists()


def test_a_metric_without_labels_is_refused(distilled, texts) -> None:
    with pytest.raises(DataError, match="the metric accuracy needs labels"):
        distilled(evaluate=texts[0], metric="accuracy")


@pytest.mark.parametrize(("field", "value"), [("precision", "fp16"), ("save_steps", 3)])
def test_settings_that_nothing_reads_are_refused(field: str, value: object) -> None:
    training = dataclasses.replace(TRAINING, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=f"--{field.replace('_', '-')}"):
        LayerwiseRequest("t", "s", "a", "b", Path(), training=training)


def test_the_command(teacher: Path, texts, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    given = [
        "distill",
        "--layerwise",
        "--teacher",
        str(teacher),
        "--student",
        str(teacher),
        "--threads",
        "1",
    ]
    given += [
        "--train",
        texts[0],
        "--evaluate",
        texts[1],
        "--quantize",
        "int4",
        "--epochs",
        "1",
        "-o",
        "out",
    ]
    assert run([*given, "--alpha", "0.5"]) == 2
    assert "--layerwise reads no --alpha: leave one of them out" in capsys.readouterr().err
    assert run([*given, "--json", "-"]) == 0
    out, said = capsys.readouterr()
    document = json.loads(out)
    assert [row["name"] for row in document["networks"]] == ["teacher", "untrained", "layerwise"]
    assert len(document["blocks"]) == 3 and "irc: wrote out/" in said
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"config.json", "model.safetensors", "report.json", "tokenizer.json"}
    assert np.isfinite(document["networks"][2]["kept_db"])
    assert not (tmp_path / "out.checkpoints").exists()
