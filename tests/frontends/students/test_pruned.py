"""Pruned ONNX models turned back into networks: the same numbers, and zeros that stay zeros."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools import optimize
from irtools.errors import ModelError, UnsupportedError, UsageError
from irtools.model import Model
from irtools.sources import load_source

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, make_bert) -> tuple[Path, Model]:
    """A checkpoint whose biases and norms are not zeros and ones, and its export."""
    folder = tmp_path_factory.mktemp("pruned") / "bert"
    network = make_bert(folder, layers=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    network.save_pretrained(folder)
    return folder, load_source(str(folder))


def prune(exported: tuple[Path, Model], text: str, folder: Path, **options: object) -> Path:
    result = optimize(
        exported[1],
        text,
        bench=None,
        check=False,
        reproducer=False,
        **options,  # type: ignore
    )
    path = folder / "pruned.onnx"
    result.deployed.save(path)
    shutil.copyfile(exported[0] / "config.json", folder / "config.json")
    return path


def read(path: Path, teacher: object = None):
    from irtools.frontends.students.networks.pruned import read_pruned

    return read_pruned(path, teacher)


def logits_of(path: Path) -> tuple[dict, np.ndarray]:
    from irtools.data import SyntheticSettings, synthesize
    from irtools.targets import RunnerOptions, find_target

    model = Model.load(path)
    feeds = dict(synthesize(model, SyntheticSettings(samples=3, sequence=9, seed=1)).feeds)
    with find_target("ort-cpu").runner(model, RunnerOptions(exact=True)) as runner:
        return feeds, runner.run(feeds)["logits"]


@pytest.mark.parametrize(
    "text", ["cleanup", "prune:ratio=0.4:round-to=1", "prune:ratio=0.3:heads=false:scope=local"]
)
def test_the_same_numbers(exported: tuple[Path, Model], text: str, tmp_path: Path) -> None:
    path = prune(exported, text, tmp_path)
    network, said = read(path)
    feeds, wanted = logits_of(path)
    with torch.inference_mode():
        found = network(**{k: torch.from_numpy(v) for k, v in feeds.items()}).logits.numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert said.startswith("pruned.onnx: ")
    if "local" in text:
        assert network.config.intermediate_size < 48


def test_zeros_stay_zeros_in_training(exported: tuple[Path, Model], tmp_path: Path) -> None:
    network, said = read(prune(exported, "prune:ratio=0.5:round-to=1", tmp_path))
    assert "prune them after the export" in said
    layers = network.bert.encoder.layer

    def dead() -> list[torch.Tensor]:
        ways = [layer.output.dense.weight for layer in layers]
        ways += [layer.attention.output.dense.weight for layer in layers]
        return [~way.any(dim=0) for way in ways]

    before = dead()
    assert sum(int(d.sum()) for d in before)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        ids = torch.randint(4, 20, (8, 10), generator=generator)
        labels = torch.randint(0, 3, (8,), generator=generator)
        optimizer.zero_grad()
        network.train()(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    for old, new in zip(before, dead(), strict=True):
        assert torch.equal(old, new)


def test_weights_that_are_not_there_are_named(exported: tuple[Path, Model], tmp_path: Path) -> None:
    path = prune(exported, "cleanup", tmp_path)
    model = Model.load(path).clone()
    model.ir.graph.initializers["bert.encoder.layer.0.output.LayerNorm.weight"].name = "gamma"
    model.save(path)
    with pytest.raises(
        UnsupportedError, match=r"layer\.0\.output\.LayerNorm\.weight .*before fuse and int8"
    ):
        read(path)


def test_a_resumed_training_knows_its_pruned_file(
    exported: tuple[Path, Model], data: tuple[str, str], tmp_path: Path
) -> None:
    """Another file of the same size and with the same beginning is another student."""
    import dataclasses

    from irtools.plugins import NullProgress
    from irtools.students import DistillRequest, TrainingSettings, find_trainer

    path = prune(exported, "cleanup", tmp_path)
    shutil.copyfile(exported[0] / "tokenizer.json", tmp_path / "tokenizer.json")
    request = DistillRequest(
        str(exported[0]),
        str(path),
        *data,
        tmp_path / "work",
        training=TrainingSettings(epochs=0.125, batch=8),
    )
    assert find_trainer().distill(request, NullProgress()) is not None
    model = Model.load(path).clone()
    bias = model.ir.graph.initializers["classifier.bias"]
    bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(1), name=bias.name)
    size = path.stat().st_size
    model.save(path)
    assert path.stat().st_size == size
    with pytest.raises(UsageError, match="another teacher, student"):
        find_trainer().distill(dataclasses.replace(request, resume=True), NullProgress())


def test_a_config_is_needed_and_must_fit(exported: tuple[Path, Model], tmp_path: Path) -> None:
    import json

    path = prune(exported, "cleanup", tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UsageError, match=r"put the config\.json"):
        read(path)
    config = json.loads((exported[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(ModelError, match="is that of another network"):
        read(path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8}))
    with pytest.raises(UnsupportedError, match=r"position_embeddings\.weight has shape"):
        read(path)
