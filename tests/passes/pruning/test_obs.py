from __future__ import annotations

import numpy as np
import pytest

from irtools.analysis.channels import IndexMap
from irtools.passes.pruning.obs import LayerProblem, refit, removal_path, shrunk_moments


def _problem(
    inputs: int, outputs: int, seed: int, count: int = 500
) -> tuple[LayerProblem, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((inputs, inputs)) / np.sqrt(inputs)
    x = rng.standard_normal((count, inputs)) @ mixing + rng.standard_normal(inputs)
    weight = rng.standard_normal((inputs, outputs))
    ones = np.hstack([x, np.ones((count, 1))])
    return LayerProblem.of(ones.T @ ones, count, weight), ones, weight


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_refit_is_ridge_regression_on_the_survivors(seed: int) -> None:
    problem, ones, weight = _problem(12, 5, seed)
    rows = np.array([0, 3, 4, 7, 11])
    kept = np.append(rows, 12)
    count = len(ones)
    # The ridge pulls towards the old weights, not towards zero.
    extra = problem.hessian() - ones.T @ ones / count
    target = np.vstack([weight, np.zeros(5)])
    left = ones[:, kept].T @ ones[:, kept] / count + extra[np.ix_(kept, kept)]
    right = ones[:, kept].T @ (ones @ target) / count + extra[kept] @ target
    np.testing.assert_allclose(refit(problem, rows), np.linalg.solve(left, right), atol=1e-8)


@pytest.mark.parametrize(("units", "inner"), [(12, 1), (4, 3)])
@pytest.mark.parametrize("chunk", [1, 2])
def test_error_along_the_path_is_the_error_of_the_refit(units: int, inner: int, chunk: int) -> None:
    problem, _, _ = _problem(12, 5, seed=3)
    mapping = IndexMap(units, inner)
    path = removal_path(problem, mapping, chunk)
    assert sorted(path.order.tolist()) == list(range(units))
    for removed in range(0, units, chunk):
        rows = mapping.indices(path.order[removed:].tolist())
        kept = np.append(rows, 12)
        moved = -problem.weight.copy()
        moved[kept] += refit(problem, rows)
        error = np.einsum("kn,kl,ln->", moved, problem.hessian(), moved) / problem.energy
        assert path.errors[removed] == pytest.approx(error, abs=1e-8)


def test_errors_never_fall_and_end_at_the_energy() -> None:
    problem, _, _ = _problem(16, 4, seed=4)
    path = removal_path(problem, IndexMap(16))
    assert (np.diff(path.errors) >= -1e-12).all()
    assert path.errors[-1] == pytest.approx(1.0, rel=1e-2)


def test_a_copied_input_goes_first_and_for_free() -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((400, 6))
    x[:, 4] = 2 * x[:, 1] + 1
    ones = np.hstack([x, np.ones((400, 1))])
    problem = LayerProblem.of(ones.T @ ones, 400, rng.standard_normal((6, 3)))
    path = removal_path(problem, IndexMap(6))
    assert path.order[0] in (1, 4)
    assert path.errors[1] < 0.01 < path.errors[2]


def test_without_a_bias_the_constant_is_not_used() -> None:
    problem, ones, weight = _problem(8, 3, seed=6)
    bare = LayerProblem.of(ones.T @ ones, len(ones), weight, has_bias=False)
    assert not refit(bare, np.arange(4))[-1].any()
    assert refit(problem, np.arange(4))[-1].any()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_few_samples_are_not_trusted(seed: int) -> None:
    """Inputs of very different sizes: a refit on few of them must hold for others as well."""
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.standard_normal(40))
    mixing = np.eye(40) + rng.standard_normal((40, 40)) / np.sqrt(40)
    weight = rng.standard_normal((40, 6))
    x = (rng.standard_normal((4000, 40)) @ mixing + 1) * scales
    errors = {}
    for count in (24, 48, 200, 3000):
        ones = np.hstack([x[:count], np.ones((count, 1))])
        kept = np.arange(20)
        solved = refit(LayerProblem.of(ones.T @ ones, count, weight), kept)
        unseen = x[3000:]
        missed = unseen[:, :20] @ solved[:-1] + solved[-1] - unseen @ weight
        errors[count] = float(np.sum(missed**2) / np.sum((unseen @ weight) ** 2))
    assert errors[3000] < errors[200] < errors[48] < errors[24]
    assert errors[24] < 2 * errors[3000] < 1.0


def test_plenty_of_samples_are_taken_as_they_are() -> None:
    _, ones, _ = _problem(12, 5, seed=0, count=200_000)
    moments = ones.T @ ones / len(ones)
    diagonal = np.diag(shrunk_moments(moments, len(ones)))
    np.testing.assert_allclose(
        shrunk_moments(moments, len(ones)), moments, atol=2e-3 * diagonal.max()
    )
    (single,) = np.diag(shrunk_moments(np.array([[4.0, 1.0], [1.0, 1.0]]), 3))[:1]
    assert single == pytest.approx(4.004)
