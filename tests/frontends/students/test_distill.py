"""Distillation end to end on tiny networks: what it trains, refuses, repeats and resumes."""

from __future__ import annotations

import dataclasses
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irtools.errors import DataError, FileError, ModelError, UsageError
from irtools.plugins import NullProgress
from irtools.students import (
    DistillRequest,
    DistillResult,
    FinetuneRequest,
    TrainingSettings,
    find_trainer,
)

pytestmark = [
    pytest.mark.torch,
    # The library's own, from a machine without a GPU.
    pytest.mark.filterwarnings("ignore:.*pin_memory.*"),
]
torch = pytest.importorskip("torch")

Make = Callable[..., DistillRequest]
QUICK = TrainingSettings(epochs=6, batch=8, learning_rate=5e-3)
ONE = TrainingSettings(epochs=0.25, batch=8, learning_rate=5e-3)


def run(request: DistillRequest) -> DistillResult:
    result = find_trainer().distill(request, NullProgress())
    assert result is not None
    return result


def weights_of(folder: Path | None) -> dict:
    from safetensors.torch import load_file

    assert folder is not None
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def done(teacher: Path, data: tuple[str, str], tmp_path_factory: pytest.TempPathFactory):
    """One distillation with every kind of term, and its request."""
    folder = tmp_path_factory.mktemp("done")
    request = DistillRequest(
        teacher=str(teacher),
        student="layers=0,2",
        train=data[0],
        evaluate=data[1],
        work=folder / "work",
        losses={"soft": 0.5, "hard": 0.5, "hidden": 0.1, "relation": 0.1},
        cache=folder / "cache",
        training=QUICK,
    )
    return request, run(request)


def test_both_students_have_one_budget(done) -> None:
    _, result = done
    assert result.distilled.steps == result.hard_label.steps == 48
    assert result.distilled.parameters == result.hard_label.parameters
    assert result.distilled.parameters < result.teacher.parameters
    assert set(result.hard_label.losses) == {"hard"}
    assert set(result.distilled.losses) == {"soft", "hard", "hidden", "relation"}


def test_figures_are_on_the_test_data(done) -> None:
    _, result = done
    for trained in (result.teacher, result.hard_label, result.distilled):
        assert trained.evaluation.name == "accuracy"
        assert trained.evaluation.samples == 32
        assert trained.evaluation.low <= trained.evaluation.value <= trained.evaluation.high
    values = [x.evaluation.value for x in (result.distilled, result.hard_label)]
    assert result.gain.value == pytest.approx(values[0] - values[1])
    assert result.gain.low <= result.gain.value <= result.gain.high
    assert any("layers 0, 2 of the teacher's 3" in note for note in result.notes)


def test_students_learn_and_differ(done) -> None:
    _, result = done
    # Guessing costs ln 3.
    assert result.hard_label.losses["hard"] < 1.05
    own, other = weights_of(result.distilled.folder), weights_of(result.hard_label.folder)
    assert any(not torch.equal(own[name], other[name]) for name in own)


def test_the_result_is_a_plain_checkpoint(done) -> None:
    from irtools.frontends.students.networks.checkpoints import load_network

    _, result = done
    names = {path.name for path in result.distilled.folder.iterdir()}
    assert names == {"config.json", "model.safetensors"}
    network = load_network(result.distilled.folder)
    assert network.config.id2label == {0: "sport", 1: "trade", 2: "crude"}
    assert network.config.problem_type == "single_label_classification"


def test_outputs_of_the_teacher_are_kept(done, monkeypatch: pytest.MonkeyPatch) -> None:
    from irtools.frontends.students.training import teacher as module
    from irtools.measure.cache import OutputCache

    request, _ = done
    assert request.cache is not None
    (first, second) = sorted(request.cache.glob("store-*/outputs/*/*"))
    kept = OutputCache(request.cache)
    entries = [kept.get(path.name) for path in (first, second)]
    assert sorted(entry["logits"].shape for entry in entries if entry) == [(32, 3), (64, 3)]
    found = module.open_teacher(request.teacher, "ort-cpu", None)
    deaf = dataclasses.replace(found, run=lambda data: pytest.fail("computed again"))
    from irtools.frontends.students.training.data import read_splits

    names = {"sport": 0, "trade": 1, "crude": 2}
    settings = dataclasses.replace(request.data, class_names=names)
    splits = read_splits(found.network, found.folder, request.train, request.evaluate, settings)
    scores, note = module.cached_outputs(deaf, splits.test, request.cache, NullProgress())
    assert scores.shape == (32, 3) and note is None
    # A damaged entry is made again.
    for path in (first, second):
        file = path / "arrays.npz"
        file.write_bytes(file.read_bytes()[:-30])
    again, note = module.cached_outputs(found, splits.test, request.cache, NullProgress())
    assert note is not None and "is damaged (arrays.npz has" in note
    np.testing.assert_array_equal(again, scores)


def test_a_cache_that_cannot_be_written_is_told(done, tmp_path: Path) -> None:
    from irtools.frontends.students.training.teacher import Teacher, cached_outputs

    (tmp_path / "file").write_text("")
    teacher = Teacher("t", tmp_path, None, "0", 1, lambda data: np.zeros((4, 3), np.float32))
    from irtools.data import Dataset

    data = Dataset({"x": np.zeros((4, 1))}).with_digest()
    _, note = cached_outputs(teacher, data, tmp_path / "file" / "cache", NullProgress())
    assert note is not None and "not cached" in note


def test_same_seed_same_weights(request_of: Make, tmp_path: Path) -> None:
    runs = [
        run(request_of(work=tmp_path / name, training=dataclasses.replace(ONE, seed=seed)))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    first, second, other = (weights_of(result.distilled.folder) for result in runs)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_resumed_training_ends_where_an_unbroken_one_does(
    request_of: Make, tmp_path: Path
) -> None:
    """Stopped in the second training, after a checkpoint; dropout makes the random state count."""
    training = TrainingSettings(epochs=1, batch=8, learning_rate=5e-3, save_steps=3)
    whole = run(request_of(work=tmp_path / "whole", training=training))

    class Stop(NullProgress):
        def step(self, label: str, done: int, total: int) -> None:
            if "distilled" in label and done == 5:
                raise KeyboardInterrupt

    request = request_of(work=tmp_path / "broken", training=training)
    with pytest.raises(KeyboardInterrupt):
        find_trainer().distill(request, Stop())
    with pytest.raises(UsageError, match="holds an interrupted training: --resume continues it"):
        run(request)
    other = dataclasses.replace(request, temperature=3.0, resume=True)
    with pytest.raises(UsageError, match="another teacher, student, data or budget"):
        run(other)
    resumed = run(dataclasses.replace(request, resume=True))
    assert resumed.distilled.steps == 8
    own, wanted = weights_of(resumed.distilled.folder), weights_of(whole.distilled.folder)
    for name, tensor in wanted.items():
        assert torch.equal(tensor, own[name]), name
    assert resumed.hard_label.evaluation == whole.hard_label.evaluation


@pytest.mark.parametrize(("what", "limit"), [("weights", 40_000), ("optimizer", 130_000)])
def test_a_full_disk(request_of: Make, what: str, limit: int) -> None:
    request = request_of(training=ONE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(FileError, match="is the disk full"):
            run(request)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert any(request.work.rglob("model.safetensors")) == (what == "optimizer")
    assert run(dataclasses.replace(request, resume=True)).distilled.steps == 2


def test_half_written_checkpoints_are_passed_over(tmp_path: Path) -> None:
    from irtools.frontends.students.training.loop import last_checkpoint

    assert last_checkpoint(tmp_path) is None
    for number, text in (
        (5, '{"global_step": 5}'),
        (10, '{"global_step": 10}'),
        (20, "{"),
        (30, None),
    ):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        if text is not None:
            (folder / "trainer_state.json").write_text(text)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_several_labels(tmp_path: Path, make_bert: Callable, write_rows: Callable) -> None:
    make_bert(tmp_path / "teacher", layers=2)
    label = lambda topics: [int(t in topics) for t in ("sport", "trade", "crude")]  # noqa: E731
    train = write_rows(tmp_path / "train.jsonl", 24, label, 1)
    test = write_rows(tmp_path / "test.jsonl", 16, label, 2)
    request = DistillRequest(
        str(tmp_path / "teacher"), "layers=1", str(train), str(test), tmp_path / "w", training=ONE
    )
    result = run(request)
    assert result.distilled.evaluation.name == "multilabel-f1-micro"
    config = json.loads((result.distilled.folder / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"


def test_one_class_per_sample_for_a_teacher_of_several(
    tmp_path: Path, make_bert: Callable, write_rows: Callable
) -> None:
    make_bert(tmp_path / "teacher", layers=2)
    config = tmp_path / "teacher" / "config.json"
    told = {**json.loads(config.read_text()), "problem_type": "multi_label_classification"}
    config.write_text(json.dumps(told))
    train = write_rows(tmp_path / "train.jsonl", 8, lambda topics: len(topics) % 3, 1)
    request = DistillRequest(
        str(tmp_path / "teacher"), "layers=1", str(train), str(train), tmp_path / "w", training=ONE
    )
    with pytest.raises(DataError, match=r"one class per sample, and .* or --task multi-class"):
        run(request)


def test_an_activation_that_nobody_knows(
    tmp_path: Path, make_bert: Callable, write_rows: Callable
) -> None:
    folder = str(tmp_path / "bert")
    make_bert(tmp_path / "bert", layers=1)
    config = tmp_path / "bert" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_act": "gelux"}))
    rows = str(write_rows(tmp_path / "train.jsonl", 8, lambda topics: len(topics) % 2, 1))
    said = "hidden_act is 'gelux', which is not an activation of transformers; known are gelu"
    with pytest.raises(ModelError, match=said):
        run(DistillRequest(folder, "layers=0", rows, rows, tmp_path / "w", training=ONE))
    with pytest.raises(ModelError, match=said):
        find_trainer().finetune(
            FinetuneRequest(folder, rows, rows, tmp_path / "w", training=ONE), NullProgress()
        )


def test_numbers(tmp_path: Path, make_bert: Callable, write_rows: Callable) -> None:
    make_bert(tmp_path / "teacher", layers=2, labels=1)
    label = lambda topics: 0.5 + len(topics[0])  # noqa: E731
    train = write_rows(tmp_path / "train.jsonl", 24, label, 1)
    test = write_rows(tmp_path / "test.jsonl", 16, label, 2)
    request = DistillRequest(
        str(tmp_path / "teacher"), "layers=1", str(train), str(test), tmp_path / "w", training=ONE
    )
    result = run(request)
    assert result.distilled.evaluation.name == "mse"
    assert not result.distilled.evaluation.larger_is_better
    assert set(result.distilled.losses) == {"soft", "hard"}


def test_an_onnx_teacher_and_a_checkpoint_student(
    teacher: Path, request_of: Make, make_bert: Callable, tmp_path: Path
) -> None:
    from irtools.sources import load_source

    folder = tmp_path / "onnx"
    folder.mkdir()
    load_source(str(teacher)).save(folder / "teacher.onnx")
    (folder / "tokenizer.json").write_bytes((teacher / "tokenizer.json").read_bytes())
    make_bert(tmp_path / "student", layers=1, hidden=16, seed=5)
    request = request_of(
        teacher=str(folder / "teacher.onnx"), student=str(tmp_path / "student"), training=ONE
    )
    result = run(request)
    assert result.teacher.folder is None
    same = run(request_of(work=tmp_path / "w2", training=ONE))
    # The same teacher through ONNX Runtime and through torch.
    assert result.teacher.evaluation == same.teacher.evaluation
    with pytest.raises(UsageError, match="shows its outputs alone"):
        run(dataclasses.replace(request, work=tmp_path / "w3", losses={"hidden": 1.0}))


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (lambda topics: 7, r"label 7 of sample 1 is outside the 3 classes"),
        (lambda topics: -1, r"label -1 of sample 1 is outside the 3 classes"),
        (lambda topics: "music", "unknown label 'music'; known are sport, trade, crude"),
        (lambda topics: None, "no label"),
        (lambda topics: [0, 1], "test.jsonl: 1 label per sample, and the network gives 3 scores"),
    ],
)
def test_labels_that_do_not_fit(
    label: Callable, said: str, request_of: Make, write_rows: Callable, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 4, label, 1)
    request = request_of(train=str(rows))
    with pytest.raises(DataError, match=said):
        run(request)
    assert not request.work.exists()


def test_bad_input_is_refused_before_any_training(
    request_of: Make, make_bert: Callable, tmp_path: Path
) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    bare = tmp_path / "bare"
    make_bert(bare)
    (bare / "tokenizer.json").unlink()
    (tmp_path / "folder").mkdir()
    for changes, kind, said in (
        ({"train": str(tmp_path / "empty.jsonl")}, DataError, "holds no rows"),
        ({"train": str(tmp_path / "none.jsonl")}, FileError, "none.jsonl"),
        ({"teacher": str(tmp_path / "none")}, FileError, "there is no teacher"),
        ({"teacher": str(tmp_path / "folder")}, ModelError, "no config.json"),
        ({"teacher": str(bare)}, DataError, "text needs a tokenizer"),
        ({"losses": {"hard": 1.0}}, UsageError, "no loss looks at the teacher"),
    ):
        request = request_of(**changes)
        with pytest.raises(kind, match=said):
            run(request)
        assert not request.work.exists()


def test_a_student_of_other_classes(request_of: Make, make_bert: Callable, tmp_path: Path) -> None:
    make_bert(tmp_path / "other", layers=1, labels=5)
    with pytest.raises(DataError, match="the student gives 5 scores and the teacher 3"):
        run(request_of(student=str(tmp_path / "other")))


def test_a_network_that_broke_in_the_last_step(request_of: Make) -> None:
    """Every loss was finite; the step that ruins the weights is after the last of them."""
    training = dataclasses.replace(ONE, learning_rate=1e30)
    with pytest.raises(DataError, match="hard-label network gives NaN or infinity after"):
        run(request_of(training=training))


def test_one_process_can_read_what_many_have_trained(
    request_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library keeps the settings of ZeRO-3 when a training is done, and would go on sharing."""
    from transformers.integrations import deepspeed

    from irtools.frontends.students.training.loop import StudentLoop

    class Zero3:
        def is_zero3(self) -> bool:
            return True

    settings = Zero3()
    save = StudentLoop.save_model

    def save_and_keep(self: StudentLoop, folder: str, _internal_call: bool = False) -> None:
        save(self, folder, _internal_call)
        if not _internal_call:
            deepspeed.set_hf_deepspeed_config(settings)

    monkeypatch.setattr(StudentLoop, "save_model", save_and_keep)
    assert run(request_of(training=ONE)).distilled.steps == 2
    assert not deepspeed.is_deepspeed_zero3_enabled()


def test_fp16_needs_a_gpu(request_of: Make) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    from irtools.errors import UnsupportedError

    with pytest.raises(UnsupportedError, match="fp16 needs a GPU"):
        run(request_of(training=dataclasses.replace(ONE, precision="fp16")))


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_is_float32_where_there_are_no_kernels_for_it(
    fast: bool, request_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irtools.frontends.students.training import precision
    from irtools.frontends.students.training.loop import StudentLoop

    used = []

    def arithmetic(loop: StudentLoop, *given: Any, **more: Any) -> Any:
        used.append((loop.args.bf16, loop.args.mixed_precision))
        return original(loop, *given, **more)

    original = StudentLoop.compute_loss
    monkeypatch.setattr(StudentLoop, "compute_loss", arithmetic)
    monkeypatch.setattr(precision, "_bf16_is_fast", lambda: fast)
    result = run(request_of(training=dataclasses.replace(ONE, precision="bf16")))
    assert all(t.dtype == torch.float32 for t in weights_of(result.distilled.folder).values())
    assert set(used) == {(True, "bf16") if fast else (False, "no")}
    told = [note for note in result.notes if "no kernels for bf16" in note]
    assert len(told) == (not fast)
