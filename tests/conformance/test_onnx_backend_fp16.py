"""The node tests in half precision.

As storage the pass must do nothing but round: a model whose weights are float16 numbers to begin
with gives the same outputs, bit by bit. As arithmetic (the table of a target that computes in
float16, the answers of ONNX Runtime's CPU provider, which casts around each operator) outputs stay
within a relative L2 error of 2e-3, four roundings to 11 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from irtools.errors import IrtoolsError
from irtools.model import print_model
from irtools.passmanager import PassContext

from .node_tests import RUNTIME_ERRORS, Arrays, Case, difference, run_in_ort, transform

ROUNDED = 2e-3

LOWEST = "the scores are an output, and a masked one is the lowest number of its type"
EXPLAINED: Mapping[str, str] = {
    "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal": LOWEST,
    "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal": LOWEST,
}
"""Test name to the reason why its float16 answer is another one."""

MIN_STORED = 300
MIN_COMPUTED = 150


def fault(
    model: onnx.ModelProto, feeds: Arrays, text: str, tolerance: float, ctx: PassContext
) -> str | None:
    """What went wrong; empty where nothing did, None where the pass changed nothing."""
    try:
        found = transform(model, text, ctx)
        if print_model(found) == print_model(ir.from_proto(model)):
            return None
        outputs = run_in_ort(ir.to_proto(found), feeds)
        worst = max(map(difference, run_in_ort(model, feeds), outputs), default=0.0)
    except (AssertionError, IrtoolsError, *RUNTIME_ERRORS) as error:
        return f"{type(error).__name__}: {error}"
    return "" if worst <= tolerance else f"outputs differ by {worst:.2g}"


def with_half_weights(case: Case) -> tuple[onnx.ModelProto, Arrays]:
    """All inputs but the first become weights, rounded to float16 and back; so are constants."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    first, *others = case.feeds
    kept = [value for value in model.graph.input if value.name not in others]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for name in others:
        array = rounded(case.feeds[name])
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for attribute in (a for n in model.graph.node if n.op_type == "Constant" for a in n.attribute):
        if attribute.name == "value":
            array = rounded(onnx.numpy_helper.to_array(attribute.t))
            attribute.t.CopyFrom(onnx.numpy_helper.from_array(array))
        elif attribute.name == "value_float":
            attribute.f = float(rounded(np.asarray(attribute.f, np.float32)))
    return model, {first: case.feeds[first]}


def rounded(array: np.ndarray) -> np.ndarray:
    """The nearest float16 values, where all of them are finite."""
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16).astype(np.float32)
    return half if np.isfinite(half).all() else array


def test_storage_does_nothing_but_round(
    cases: list[Case], make_context: Callable[..., PassContext]
) -> None:
    ctx, found = make_context(), {}
    for case in cases:
        if len(case.feeds) < 2 or any(a.dtype == object for a in case.feeds.values()):
            continue
        model, feeds = with_half_weights(case)
        try:
            run_in_ort(model, feeds)
        except RUNTIME_ERRORS:
            continue  # Some operators need certain inputs at run time.
        found[case.name] = fault(model, feeds, "fp16:min-size=1", 0.0, ctx)
    assert {name: what for name, what in found.items() if what} == {}
    assert sum(what is not None for what in found.values()) >= MIN_STORED


def test_arithmetic_stays_within_its_roundings(
    cases: list[Case], make_context: Callable[..., PassContext]
) -> None:
    ctx = make_context("ort-cuda")
    found = {c.name: fault(c.model, c.feeds, "fp16", ROUNDED, ctx) for c in cases}
    faults = {name: what for name, what in found.items() if what}
    assert {name: what for name, what in faults.items() if name not in EXPLAINED} == {}
    assert EXPLAINED.keys() <= faults.keys(), "explained, but no longer different"
    assert sum(what is not None for what in found.values()) >= MIN_COMPUTED
