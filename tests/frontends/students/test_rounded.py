"""Training through the rounding of weights: forms, gradients, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irtools.errors import OptionError, UnsupportedError
from irtools.passes.quantization.ranges.arithmetic import dequantize, quantize_weight
from irtools.passes.quantization.ranges.grids import find_grid
from irtools.passes.quantization.ranges.spec import PerAxis, weight_spec
from irtools.plugins import NullProgress
from irtools.students import AdapterSettings, FinetuneRequest, TrainingSettings, find_trainer

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

FORMS = ("int8", "int4", "ternary")


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 3))


def rounded(form: str, weight: torch.Tensor) -> np.ndarray:
    from irtools.frontends.students.networks.rounded import round_weights

    layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = torch.nn.Parameter(weight.clone())
    assert round_weights(torch.nn.Sequential(layer), form) == 1
    return layer.weight.detach().numpy()


def test_int8_is_what_int8_stores() -> None:
    weight = rounded("int8", torch.randn(24, 64))
    again = dequantize(*quantize_weight(weight, weight_spec(PerAxis(0))))
    np.testing.assert_allclose(again, weight, rtol=1e-6)


@pytest.mark.parametrize(("form", "most"), [("int4", 0.12), ("ternary", 0.6)])
def test_int4_finds_the_grid(form: str, most: float) -> None:
    weight = torch.randn(24, 64)
    weight[3], weight[4, :32] = 0, 0
    found = rounded(form, weight)
    grid = find_grid(found, 0)
    assert grid is not None and grid.bits == 4
    assert np.isfinite(found).all()
    lost = np.linalg.norm(found - weight.numpy()) / np.linalg.norm(weight.numpy())
    assert 0 < lost < most


def test_ternary_has_three_values_a_row() -> None:
    assert all(len(np.unique(row)) == 3 for row in rounded("ternary", torch.randn(9, 64)))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_at_the_rounded_weights(form: str) -> None:
    from irtools.frontends.students.networks.rounded import round_weights, trained_through

    x, trained, settled = torch.randn(5, 64), network(), network()
    round_weights(settled, form)
    before = {name: p.clone() for name, p in trained.named_parameters()}
    with trained_through(trained, form):
        trained(x).square().sum().backward()
    settled(x).square().sum().backward()
    for (name, found), wanted in zip(trained.named_parameters(), settled.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad)
        assert torch.equal(found, before[name])
    # Afterwards the network computes with its own weights again.
    torch.testing.assert_close(trained(x), network()(x))


def test_a_network_without_such_layers_is_refused() -> None:
    from irtools.frontends.students.networks.rounded import round_weights

    with pytest.raises(UnsupportedError, match="Sequential has no Linear that int4 is for"):
        round_weights(torch.nn.Sequential(torch.nn.Linear(15, 3)), "int4")


def test_adapters_are_refused() -> None:
    with pytest.raises(OptionError, match="quantize is for training all weights"):
        FinetuneRequest(
            "base", "a", "b", Path(), AdapterSettings(), training=TrainingSettings(quantize="int4")
        )


@pytest.mark.slow
@pytest.mark.parametrize("form", ["ternary", "int4"])
def test_a_network_learns_to_live_with_it(
    teacher: Path, write_rows: Callable[..., Path], tmp_path: Path, form: str
) -> None:
    """The same training without the rounding, rounded afterwards, loses much more."""
    from irtools.frontends.students.networks.checkpoints import load_network
    from irtools.frontends.students.networks.rounded import round_weights, rounded_layers

    data = [
        str(write_rows(tmp_path / f"{seed}.jsonl", count, lambda topics: topics[0], seed))
        for seed, count in ((1, 96), (2, 64))
    ]
    folders: dict[str | None, Path] = {}
    scores = {}
    for quantize in (form, None):
        training = TrainingSettings(epochs=12, batch=8, learning_rate=2e-3, quantize=quantize)
        work = tmp_path / str(quantize)
        request = FinetuneRequest(str(teacher), *data, work, training=training)
        found = find_trainer().finetune(request, NullProgress())
        assert found is not None and found.result.folder is not None
        folders[quantize], scores[quantize] = found.result.folder, found
    assert f"trained through the {form} rounding of 20 Linears; `int4` keeps these weights" in (
        scores[form].notes
    )
    trained, plain = (load_network(folders[name]) for name in (form, None))
    for layer in rounded_layers(trained, form).values():
        grid = find_grid(layer.weight.detach().numpy(), 0)
        assert grid is not None and grid.bits == 4
    score = scores[form].result.evaluation.value
    assert score > 0.85
    if form == "ternary":
        round_weights(plain, form)
        assert score > accuracy(plain, data[1], teacher) + 0.2


def accuracy(network, test: str, folder: Path) -> float:
    from irtools.data import DataSettings, load_dataset, signature_of
    from irtools.frontends.students.training.scoring import outputs_of, score

    settings = DataSettings(tokenizer=folder, class_names={"sport": 0, "trade": 1, "crude": 2})
    data = load_dataset(test, signature_of(network, folder), settings)
    return score(outputs_of(network, data), data, "accuracy", 0).value
