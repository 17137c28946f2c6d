"""What the comparison of numbers before and after a pass lets through, and what not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import VerificationError
from irtools.instruments import Numerics
from irtools.instruments.promises import check_outputs
from irtools.instruments.rounding import own_rounding, perturbed_feeds, perturbed_model
from irtools.model import Model
from irtools.passmanager import Exactness, Pass, PassContext, PassResult, Pipeline
from irtools.passmanager.manager import PassManager
from irtools.passmanager.step import Step

_HEAD = '<ir_version: 10, opset_import: ["" : 20]>'

Edit = Callable[[ir.Model], None]


@dataclass(frozen=True)
class Edited(Pass):
    """Do what a test says."""

    name: ClassVar[str] = "edited"
    summary: ClassVar[str] = "Do what a test says."

    edit: ClassVar[Edit]

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        type(self).edit(model)
        return PassResult(modified=True)


def _run(model: Model, ctx: PassContext, edit: Edit, exactness: Exactness) -> Step:
    kind = type("_Edited", (Edited,), {"edit": staticmethod(edit), "exactness": exactness})
    return PassManager(Pipeline(kind()), (Numerics(ctx.target, 1),)).run(model, ctx)[1]


def _scaled(name: str, factor: float) -> Edit:
    def edit(model: ir.Model) -> None:
        value = model.graph.initializers[name]
        assert value.const_value is not None
        array = value.const_value.numpy() * np.float32(factor)
        value.const_value = ir.tensor(array, name=name)

    return edit


def _cancelling() -> Model:
    """y = x W V + b - (x W' + b) where W' = W V: sums of about 1 that leave about 1e-7."""
    zeros, few = ", ".join(64 * "0"), ", ".join(8 * "0")
    text = f"""{_HEAD} g (float[n, 8] x) => (float[n, 8] y)
        <float[8, 8] w = {{{zeros}}}, float[8, 8] v = {{{zeros}}}, float[8, 8] wv = {{{zeros}}},
         float[8] b = {{{few}}}> {{
        h = MatMul (x, w)
        a = MatMul (h, v)
        p = Add (a, b)
        q = MatMul (x, wv)
        r = Add (q, b)
        y = Sub (p, r)
    }}"""
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(0)
    w, v = rng.standard_normal((2, 8, 8)).astype(np.float32) / 3
    arrays = {"w": w, "v": v, "wv": w @ v, "b": np.full(8, 2.0, np.float32)}
    for name, array in arrays.items():
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    return Model(model)


def _merge(model: ir.Model) -> None:
    """Multiply in another order: (x w) v becomes x (w v), in float64 and rounded once."""
    graph = model.graph
    w, v = (graph.initializers[name].const_value for name in ("w", "v"))
    assert w is not None and v is not None
    product = (w.numpy().astype(np.float64) @ v.numpy().astype(np.float64)).astype(np.float32)
    graph.initializers["w"].const_value = ir.tensor(product, name="w")
    graph.initializers["v"].const_value = ir.tensor(np.eye(8, dtype=np.float32), name="v")


def test_the_yardstick_is_the_models_own_rounding(ctx: PassContext) -> None:
    step = _run(_cancelling(), ctx, _merge, Exactness.REASSOCIATED)
    assert step.figures.checks == ["numerics"]
    assert any("rounding alone" in note and "'y'" in note for note in step.figures.notes)


@pytest.mark.parametrize("factor", [1 + 1e-3, 1 + 1e-4])
def test_a_wrong_constant_is_no_rounding(
    ctx: PassContext, classifier: Model, factor: float
) -> None:
    with pytest.raises(VerificationError, match="'logits' changed"):
        _run(classifier, ctx, _scaled("w", factor), Exactness.REASSOCIATED)


def test_a_wrong_constant_shows_where_outputs_are_small_too(ctx: PassContext) -> None:
    with pytest.raises(VerificationError, match="'y' changed"):
        _run(_cancelling(), ctx, _scaled("v", 1 + 1e-3), Exactness.REASSOCIATED)


def test_exact_passes_are_held_to_the_bits_all_the_same(ctx: PassContext) -> None:
    with pytest.raises(VerificationError, match="the same bits"):
        _run(_cancelling(), ctx, _merge, Exactness.EXACT)


def test_the_last_bit_is_moved_and_zeros_stay() -> None:
    x = np.array([0.0, 1.0, -3.0, np.inf], np.float32)
    [found] = perturbed_feeds([{"x": x, "ids": np.arange(3)}])
    assert found["x"][0] == 0 and np.isinf(found["x"][3])
    moved = np.abs(found["x"][1:3] / x[1:3] - 1)
    assert (moved > 0).all() and (moved < 2**-22).all()
    np.testing.assert_array_equal(found["ids"], np.arange(3))


def test_weights_are_moved_in_a_copy() -> None:
    model = _cancelling()
    before = model.fingerprint()
    moved = perturbed_model(model)
    assert model.fingerprint() == before != moved.fingerprint()


def test_rounding_that_decides_sizes_has_no_bound() -> None:
    before = [{"y": np.ones(3), "z": np.ones(2)}]
    found = own_rounding(before, [[{"y": np.ones(4), "z": np.ones(2)}]])
    assert found == {"y": np.inf, "z": 0.0}
    two, three = {"y": np.ones(2)}, {"y": np.ones(3)}
    check_outputs(two, three, Exactness.REASSOCIATED, {"y": np.inf})


def _finder() -> Model:
    """The values above a threshold, and how many there are; z has the size of the input."""
    text = f"""{_HEAD} g (float[n, 8] x) => (float[found] y, int64[1] count, float[n, 8] z)
        <float[1] level = {{0.2}}, float[8] w = {{1, 1, 1, 1, 1, 1, 1, 1}}> {{
        z = Mul (x, w)
        over = Greater (z, level)
        minus = Constant <value_ints = [-1]> ()
        flat = Reshape (z, minus)
        which = Reshape (over, minus)
        y = Compress (flat, which)
        count = Shape (y)
    }}"""
    return Model(ir.from_onnx_text(text))


def test_a_lossy_pass_may_find_another_number(ctx: PassContext) -> None:
    step = _run(_finder(), ctx, _scaled("w", 2.0), Exactness.LOSSY)
    assert step.figures.checks == ["numerics"]


@pytest.mark.parametrize("exactness", [Exactness.EXACT, Exactness.REASSOCIATED])
def test_other_passes_may_not(ctx: PassContext, exactness: Exactness) -> None:
    with pytest.raises(VerificationError, match=r"output 'y' (was|changed)"):
        _run(_finder(), ctx, _scaled("w", 2.0), exactness)


def test_a_size_that_the_input_states_stays(ctx: PassContext) -> None:
    def cut(model: ir.Model) -> None:
        node = next(node for node in model.graph if node.outputs[0].name == "z")
        node.outputs[0].name = "whole"
        half = ir.node("Split", [node.outputs[0]], {"axis": 0, "num_outputs": 2}, num_outputs=2)
        model.graph.insert_after(node, half)
        half.outputs[0].name, half.outputs[0].type = "z", ir.TensorType(ir.DataType.FLOAT)
        half.outputs[0].shape = ir.Shape(["n", 8])
        model.graph.outputs[2] = half.outputs[0]

    with pytest.raises(VerificationError, match="output 'z' was float32"):
        _run(_finder(), ctx, cut, Exactness.LOSSY)


def test_nan_among_what_was_found_is_refused() -> None:
    before, after = {"y": np.ones(3, np.float32)}, {"y": np.array([1, np.nan], np.float32)}
    free = {"y": frozenset({0})}
    check_outputs(before, {"y": np.ones(5, np.float32)}, Exactness.LOSSY, free_axes=free)
    with pytest.raises(VerificationError, match="NaN or infinity at 1 place"):
        check_outputs(before, after, Exactness.LOSSY, free_axes=free)
