"""Torch modules that hold for some batch sizes only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irtools.errors import DataError
from irtools.frontends.torch.batches import find_batches, rebatched, size_of_batch
from irtools.sources import LoadOptions, load_source
from irtools.targets import find_target

SOURCE = """
import torch
from torch import nn


class Fixed(nn.Module):
    def forward(self, x):
        return x.view(4, 2, 3).transpose(1, 2) * 2


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(3, 5, 2, batch_first=True)

    def forward(self, x, state):
        y, last = self.cell(x, state)
        return {"y": y, "last": last}


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1)

    def forward(self, x, src_key_padding_mask):
        return self.layers(x, src_key_padding_mask=src_key_padding_mask)


class Causal(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1)
        self.register_buffer("mask", torch.triu(torch.full((6, 6), float("-inf")), 1))

    def forward(self, x):
        return self.layers(x, mask=self.mask)


def fixed(): return Fixed()
def causal(): torch.manual_seed(0); return Causal()
def stateful(): torch.manual_seed(0); return Stateful()
def masked(): torch.manual_seed(0); return Masked()
"""


def _drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_batch_is_the_leading_size_of_most_inputs() -> None:
    assert size_of_batch({"a": _drawn(2, 3), "b": _drawn(5), "c": _drawn(2)}) == 2


def test_states_have_their_batch_where_the_module_runs() -> None:
    example = {"x": _drawn(2, 7, 3), "state": _drawn(2, 2, 5)}

    def run(feeds: dict[str, np.ndarray]) -> str | None:
        same = feeds["state"].shape == (2, len(feeds["x"]), 5)
        return None if same else "another batch"

    found = find_batches(example, run)  # type: ignore[arg-type]
    assert (dict(found.axes), found.is_fixed) == ({"x": 0, "state": 1}, False)
    assert rebatched(example, found.axes, 3)["state"].shape == (2, 3, 5)


@pytest.mark.parametrize(
    ("holds", "is_fixed"), [({4}, True), ({2, 3, 4}, False), ({1, 2, 4}, True)]
)
def test_a_size_that_fails_fixes_the_batch_but_for_one_sample(
    holds: set[int], is_fixed: bool
) -> None:
    found = find_batches({"x": _drawn(4, 3)}, lambda f: None if len(f["x"]) in holds else "no")
    assert found.is_fixed is is_fixed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "batchnets.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def _load(folder: Path, name: str, **arrays: np.ndarray):  # type: ignore[no-untyped-def]
    np.savez(folder / "example.npz", **arrays)  # type: ignore[arg-type]
    return load_source(f"batchnets:{name}", LoadOptions(example=folder / "example.npz"))


@pytest.mark.torch
def test_a_module_for_one_batch_is_exported_with_it(folder: Path) -> None:
    x = _drawn(4, 6)
    model = _load(folder, "fixed", x=x)
    (note,) = model.notes
    assert "holds for batch 4 only: at batch 3: shape '[4, 2, 3]' is invalid" in note
    assert [v.shape for v in model.interface.inputs] == [(4, 6)]
    with find_target("ort-cpu").runner(model) as runner:
        (found,) = runner.run({"x": x}).values()
    np.testing.assert_array_equal(found, x.reshape(4, 2, 3).transpose(0, 2, 1) * 2)


@pytest.mark.torch
def test_states_keep_a_dynamic_batch(folder: Path) -> None:
    model = _load(folder, "stateful", x=_drawn(2, 7, 3), state=_drawn(2, 2, 5))
    assert [v.shape for v in model.interface.inputs] == [("batch", 7, 3), (2, "batch", 5)]
    assert model.notes == ()


@pytest.mark.torch
def test_zeros_of_the_fast_path_are_no_reference(folder: Path) -> None:
    mask = np.zeros((2, 6), bool)
    mask[1, 4:] = True
    model = _load(folder, "masked", x=_drawn(2, 6, 8), src_key_padding_mask=mask)
    assert model.interface.inputs[0].shape == ("batch", 6, 8)


@pytest.mark.torch
def test_no_export_branches_on_whether_a_mask_is_causal(folder: Path) -> None:
    x = _drawn(2, 6, 8)
    model = _load(folder, "causal", x=x)
    with find_target("ort-cpu").runner(model) as runner:
        (found,) = runner.run({"x": x}).values()
        (cut,) = runner.run({"x": np.where(np.arange(6)[:, None] < 3, x, 0)}).values()
    np.testing.assert_allclose(found[:, :3], cut[:, :3], atol=1e-6)
    assert np.abs(found[:, 3:] - cut[:, 3:]).max() > 0.1


@pytest.mark.torch
def test_an_example_that_does_not_run_is_told(folder: Path) -> None:
    with pytest.raises(DataError, match="does not run on"):
        _load(folder, "fixed", x=_drawn(4, 7))
