"""Which weights become zero, and what the others become."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.passes.pruning.obs import LayerProblem
from irtools.passes.pruning.sparse_weights import find_weights
from irtools.passes.pruning.zeros import (
    Pattern,
    choose_zeros,
    refit_sparse,
    scores_of,
    solve_zeros,
)

ANYWHERE = Pattern()


def problem(inputs: int, outputs: int, seed: int = 0, *, mixed: bool = True) -> LayerProblem:
    """Inputs of very different sizes, as the activations of transformers are."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((900, inputs))
    if mixed:
        x = x @ (np.eye(inputs) + rng.standard_normal((inputs, inputs)) / np.sqrt(inputs))
    x = (x + rng.standard_normal(inputs)) * np.exp(rng.standard_normal(inputs))
    ones = np.hstack([x, np.ones((900, 1))])
    return LayerProblem.of(ones.T @ ones, 900, rng.standard_normal((inputs, outputs)))


def error(found: LayerProblem, weight: np.ndarray) -> float:
    """Relative squared error of the layer's output, with the damping that the solution sees."""
    moved = weight - found.weight
    return float(np.einsum("kn,kl,ln->", moved, found.hessian(), moved) / found.energy)


def masked(found: LayerProblem, mask: np.ndarray) -> np.ndarray:
    return np.vstack([np.where(mask, 0.0, found.weight[:-1]), found.weight[-1:]])


def test_zeros_are_the_least_scores() -> None:
    scores = np.array([[9.0, 1.0, 0.5, 3.0], [0.1, 0.2, 5.0, 6.0]])
    assert choose_zeros(scores, 1, 3, ANYWHERE).tolist() == [
        [False, False, True, False],
        [True, True, False, False],
    ]
    assert choose_zeros(scores, 1, 4, ANYWHERE, by_output=True).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
    ]
    assert choose_zeros(scores, 1, 0, Pattern(2, 4)).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
    ]


def test_blocks_lie_along_the_axis() -> None:
    array = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    assert choose_zeros(array, 0, 0, Pattern(1, 2)).tolist() == [
        [True, True],
        [False, False],
        [True, True],
        [False, False],
    ]
    assert Pattern(1, 2).fits(4) and not Pattern(1, 3).fits(4) and ANYWHERE.fits(7)


@pytest.mark.parametrize("text", ["unstructured", "2of4", "4of8", "1of4"])
def test_patterns_survive_their_text(text: str) -> None:
    assert str(Pattern.parse(text)) == text


def test_n_to_m_leaves_n_of_m() -> None:
    pattern = Pattern.parse("1of4")
    assert choose_zeros(np.arange(8.0)[:, None], 0, 0, pattern).sum() == pattern.count(8) == 6


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_scores_are_errors_where_inputs_are_not_mixed(method: str) -> None:
    """One weight alone: what its score promises is what the output loses."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4000, 5)) * np.arange(1, 6)
    x -= x.mean(axis=0)
    x = np.linalg.qr(x)[0] * np.sqrt(4000) * np.arange(1, 6)
    ones = np.hstack([x, np.ones((4000, 1))])
    found = LayerProblem.of(ones.T @ ones, 4000, rng.standard_normal((5, 3)))
    scores = scores_of(found, method)  # type: ignore[arg-type]
    for row, column in ((0, 0), (4, 2)):
        mask = np.zeros((5, 3), dtype=bool)
        mask[row, column] = True
        assert scores[row, column] == pytest.approx(error(found, masked(found, mask)), rel=1e-2)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_stays_makes_up_for_what_goes(share: float, seed: int) -> None:
    found = problem(40, 6, seed)
    count = int(40 * 6 * share)
    solved = solve_zeros(found, count, ANYWHERE)
    zeros = solved[:-1] == 0
    assert np.count_nonzero(zeros) == count
    refitted = refit_sparse(found, solved)
    np.testing.assert_array_equal(refitted[:-1] == 0, zeros)
    optimal = error(found, optimum(found, zeros))
    assert optimal <= error(found, refitted) < 1.05 * optimal
    assert error(found, refitted) < 0.95 * error(found, solved)
    assert error(found, solved) < 0.8 * error(found, masked(found, zeros))
    by_magnitude = choose_zeros(np.abs(found.weight[:-1]), 0, count, ANYWHERE)
    assert error(found, solved) < 0.7 * error(found, masked(found, by_magnitude))


def optimum(found: LayerProblem, zeros: np.ndarray) -> np.ndarray:
    """Solve the least squares of each output by itself."""
    hessian, solved = found.hessian(), np.zeros_like(found.weight)
    for column in range(zeros.shape[1]):
        kept = np.append(np.flatnonzero(~zeros[:, column]), len(zeros))
        right = hessian[kept] @ found.weight[:, column]
        solved[kept, column] = np.linalg.solve(hessian[np.ix_(kept, kept)], right)
    return solved


def test_a_refit_of_nothing_but_the_bias() -> None:
    found = problem(6, 3)
    refitted = refit_sparse(found, np.zeros_like(found.weight))
    np.testing.assert_allclose(refitted, optimum(found, np.ones((6, 3), dtype=bool)))


def test_the_correction_is_the_least_squares_one_for_the_last_input() -> None:
    """Only the last input has zeros: nothing but the bias can make up for it, optimally."""
    found = problem(6, 3)
    weight = found.weight.copy()
    weight[5] *= 1e-3
    small = LayerProblem(found.gram, found.count, weight)
    solved = solve_zeros(small, 3, ANYWHERE)
    assert (solved[5] == 0).all()
    np.testing.assert_allclose(solved[:5], weight[:5])
    hessian = small.hessian()
    np.testing.assert_allclose(solved[6], weight[5] * hessian[6, 5] / hessian[6, 6])


@pytest.mark.parametrize("text", ["2of4", "4of8"])
@pytest.mark.parametrize("inputs", [8, 264])
def test_solved_zeros_in_blocks(text: str, inputs: int) -> None:
    """264 inputs are more than are solved together."""
    pattern = Pattern.parse(text)
    found = problem(inputs, 3, mixed=inputs < 10)
    solved = solve_zeros(found, pattern.count(inputs * 3), pattern)
    blocks = solved[:-1].T.reshape(-1, pattern.block)
    assert (np.count_nonzero(blocks == 0, axis=1) == pattern.zeros).all()
    mask = choose_zeros(scores_of(found, "sparsegpt"), 0, 0, pattern)
    assert error(found, solved) < error(found, masked(found, mask))


def test_without_a_bias_the_constant_is_not_moved() -> None:
    found = problem(8, 3)
    bare = LayerProblem(found.gram, found.count, found.weight, has_bias=False)
    assert not solve_zeros(bare, 12, ANYWHERE)[-1].any()
    assert solve_zeros(found, 12, ANYWHERE)[-1].any()


def test_solving_again_changes_nothing() -> None:
    found = problem(140, 4, mixed=False)
    once = solve_zeros(found, 280, ANYWHERE)
    twice = solve_zeros(LayerProblem.of(found.gram, found.count, once[:-1]), 280, ANYWHERE)
    np.testing.assert_array_equal(once[:-1], twice[:-1])


def weights(text: str, w: np.ndarray) -> tuple[list[int], int]:
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 20]> {text}')
    (value,) = [v for v in model.graph.inputs if v.name == "w"]
    model.graph.inputs.remove(value)
    value.const_value = ir.tensor(w.astype(np.float32), name="w")
    model.graph.register_initializer(value)
    found, shared = find_weights(model)
    return [weight.axis for weight in found], shared


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("g (float[n,4] x, float[4,4] w) => (float[n,4] y) { y = MatMul(x, w) }", 0),
        ("g (float[n,4] x, float[4,4] w) => (float[n,4] y) { y = Gemm(x, w) }", 0),
        ("g (float[n,4] x, float[4,4] w) => (float[n,4] y) { y = Gemm<transB=1>(x, w) }", 1),
    ],
)
def test_blocks_of_a_weight_lie_along_its_inputs(text: str, axis: int) -> None:
    assert weights(text, np.ones((4, 4))) == ([axis], 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_take_no_part(bad: float) -> None:
    text = "g (float[n,4] x, float[4,4] w) => (float[n,4] y) { y = MatMul(x, w) }"
    assert weights(text, np.full((4, 4), bad)) == ([], 0)


@pytest.mark.parametrize(
    ("second", "found"),
    [
        ("MatMul(h, w)", ([0], 0)),
        ("Add(h, w)", ([], 1)),
        ("Gemm<transB=1>(h, w)", ([], 1)),
        ("MatMul(w, h)", ([], 1)),
    ],
)
def test_what_other_nodes_read_otherwise_is_left_alone(
    second: str, found: tuple[list[int], int]
) -> None:
    text = f"g (float[4,4] x, float[4,4] w) => (float[4,4] y) {{ h = MatMul(x, w) y = {second} }}"
    assert weights(text, np.ones((4, 4))) == found
