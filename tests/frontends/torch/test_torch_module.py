"""Any torch module, named as module:function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irtools.errors import DataError, ModelError, UsageError
from irtools.sources import LoadOptions, load_source
from irtools.targets import find_target

pytestmark = pytest.mark.torch

SOURCE = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(8, 16)
        self.second = torch.nn.Linear(16, 3)

    def forward(self, x, scale):
        return self.second(torch.relu(self.first(x))) * scale


def build():
    torch.manual_seed(0)
    return Net()


def not_a_module():
    return 7
"""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadOptions:
    (tmp_path / "mynets.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "example.npz",
        x=rng.normal(size=(2, 8)).astype(np.float32),
        scale=np.ones((2, 1), np.float32),
    )
    return LoadOptions(example=tmp_path / "example.npz")


def test_factory_is_exported_with_dynamic_batch(options: LoadOptions) -> None:
    model = load_source("mynets:build", options)
    assert [(v.name, v.shape) for v in model.interface.inputs] == [
        ("x", ("batch", 8)),
        ("scale", ("batch", 1)),
    ]
    with find_target("ort-cpu").runner(model) as runner:
        (out,) = runner.run(
            {"x": np.zeros((5, 8), np.float32), "scale": np.zeros((5, 1), np.float32)}
        ).values()
    assert out.shape == (5, 3)


def test_weights_are_loaded(options: LoadOptions, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    shapes = {"first.weight": (16, 8), "first.bias": (16,), "second.weight": (3, 16)}
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    state["second.bias"] = torch.tensor([1.0, 2.0, 3.0])
    save_file(state, tmp_path / "w.safetensors")
    model = load_source(
        "mynets:build", LoadOptions(example=options.example, weights=tmp_path / "w.safetensors")
    )
    with find_target("ort-cpu").runner(model) as runner:
        (out,) = runner.run(
            {"x": np.ones((1, 8), np.float32), "scale": np.full((1, 1), 2, np.float32)}
        ).values()
    np.testing.assert_array_equal(out, [[2, 4, 6]])


def test_weights_of_another_module_are_refused(options: LoadOptions, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"third.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"missing .*first"):
        load_source(
            "mynets:build", LoadOptions(example=options.example, weights=tmp_path / "w.safetensors")
        )


@pytest.mark.parametrize(
    ("source", "message"),
    [("mynets:nothing", "has no 'nothing'"), ("nosuchmodule:build", "cannot be imported")],
)
def test_wrong_names_are_told(options: LoadOptions, source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_source(source, options)


def test_factory_must_return_a_module(options: LoadOptions) -> None:
    with pytest.raises(ModelError, match=r"returned int, expected a torch\.nn\.Module"):
        load_source("mynets:not_a_module", options)


def test_example_is_needed(options: LoadOptions) -> None:
    with pytest.raises(UsageError, match="--example"):
        load_source("mynets:build")


def test_example_must_fit(options: LoadOptions, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", x=np.zeros((2, 9), np.float32), scale=np.ones((2, 1)))
    with pytest.raises(DataError, match="does not run on"):
        load_source("mynets:build", LoadOptions(example=tmp_path / "bad.npz"))
