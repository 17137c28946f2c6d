"""What products take in each form, measured on the target once for each shape.

    x [M, K] @ W [K, N]        and, of a table [V, H] that is looked up as well, x [M, H] @ W^T

M is what the product sees when the model runs at the benchmark's first shape; of a decoder with a
cache, when it reads one token more. Each form is written for a matrix of that size as for the model
itself and timed alone: what changes between forms is the product. What lies around it is the time
of the whole model in its usual forms less that of its products.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor
from irtools.errors import UnsupportedError
from irtools.measure.several import Timed, time_several_models
from irtools.model import Model, opset_of
from irtools.passes.quantization.forms.apply import apply_decisions
from irtools.passes.quantization.forms.base import WeightDecision
from irtools.passes.quantization.forms.registry import read_decision
from irtools.passes.quantization.forms.stored import StoredForm
from irtools.passes.quantization.forms.weights import WeightForm, kinds_of
from irtools.passes.quantization.ranges.arithmetic import qparams_from_range
from irtools.passes.quantization.ranges.calibration import ActivationFacts
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.spec import ACTIVATION_S8, ACTIVATION_U8
from irtools.passes.quantization.sites.find import find_sites
from irtools.passes.quantization.sites.reasons import Reason
from irtools.passes.quantization.sites.stored import find_stored
from irtools.passes.quantization.sites.uses import Weight
from irtools.passes.quantization.trial_run import flops_of
from irtools.passes.quantization.write.desk import Desk
from irtools.passmanager import Decision, PassContext
from irtools.targets import Feeds
from irtools.words import counted

if TYPE_CHECKING:
    from irtools.passes.quantization.alternatives import Priced

__all__ = ["MAX_LATENCY", "Clock", "start_clock"]

MAX_LATENCY = (
    "milliseconds that a run may take at the benchmark's first shape, of a decoder with a cache "
    "one token more; products are timed on the target in every form; the least error within it, or "
    "the least size that min-sqnr allows; bits=auto only"
)
"""Help of the option."""

_SECONDS = 60.0
"""For all products; what was not timed by then is not chosen."""
_PEAK = 4.0
_TIMES = "times of products"


@dataclass(frozen=True)
class Clock:
    """Milliseconds of each decision, and what they may add up to.

    Attributes:
        limit_ms: Of a whole run.
        around_ms: What a run takes apart from the products that are decided about.
        shape: At which it runs.
        products: What was timed, in words.
        ms: By subject and action; a decision that is missing was not timed.
    """

    limit_ms: float
    around_ms: float
    shape: str
    products: str
    ms: Mapping[tuple[str, str], float]

    @property
    def limit(self) -> float:
        """Milliseconds that the decisions may add up to."""
        return self.limit_ms - self.around_ms

    @property
    def limit_text(self) -> str:
        """The option that a user gave."""
        return f"max-latency={self.limit_ms:g}"

    def times(self, decisions: Sequence[Decision]) -> list[float]:
        """Return the time of each decision; infinite where it was not timed."""
        return [self.ms.get((d.subject, d.action), np.inf) for d in decisions]

    def run_ms(self, decisions: Sequence[Decision]) -> float:
        """Return what a run is predicted to take."""
        return self.around_ms + sum(self.times(decisions))

    def require_fastest(self, alternatives: Sequence[Sequence[Decision]]) -> None:
        """Check that the limit can be kept.

        Raises:
            UnsupportedError: Not even the fastest forms keep it.
        """
        fastest = self.around_ms + sum(min(self.times(each)) for each in alternatives)
        if fastest > self.limit_ms:
            raise UnsupportedError(
                f"{self.limit_text} cannot be kept: with the fastest forms a run takes "
                f"{fastest:.3g} ms at {self.shape}, {self.around_ms:.3g} ms of them outside of the "
                "products that are decided about"
            )

    def told(self, chosen: Sequence[Decision], usual: Sequence[Decision]) -> str:
        """Return a line for the report."""
        return (
            f"{self.limit_text}: a run is predicted to take {self.run_ms(chosen):.3g} ms at "
            f"{self.shape}, {self.run_ms(usual):.3g} ms with one form for all ({self.products})"
        )


@dataclass(frozen=True)
class _Shape:
    """What is timed: M, K, N, and whether the weight is a table that is looked up as well."""

    rows: int
    inner: int
    channels: int
    tied: bool


def start_clock(
    limit_ms: float,
    model: ir.Model,
    usual: ir.Model,
    found: Sequence[Priced],
    ctx: PassContext,
) -> Clock:
    """Time all forms of all products.

    Args:
        limit_ms: Of a whole run.
        model: In float32.
        usual: With the usual decisions carried out.
        found: What its weights may become.
        ctx: For the target, its threads and the shape.

    Raises:
        UnsupportedError: The target does not run the model.
        DataError: No inputs can be drawn for it.
        UsageError: The target is another machine.
    """
    shape, feeds = ctx.timed_feeds(model)
    weights = {weight.name: weight for weight in find_sites(model).weights}
    flops = flops_of(model, feeds)
    keys: dict[tuple[str, str], tuple[_Shape, str] | None] = {}
    forms: dict[tuple[_Shape, str], Any] = {}
    # Usual forms first: where time is short and theirs are missing, the time of all that is not
    # decided about would come out too long.
    ordered = [item.rounded.usual for item in found]
    ordered += [one for item in found for one in item.rounded.decisions]
    for decision in ordered:
        made = read_decision(decision)
        shape_of = _shape(weights[made.weight], flops)
        key = None if shape_of is None else (shape_of, _form_key(made))
        keys[decision.subject, decision.action] = key
        if key is not None:
            forms.setdefault(key, made.form)
    start = time.monotonic()
    whole, known, count = _timed(usual, shape, feeds, forms, model, ctx)
    if whole is None:
        raise UnsupportedError(f"max-latency: {ctx.target.name} does not run the quantized model")
    # What is looked up only takes a row or two.
    ms = {
        name: 0.0 if key is None else known[key]
        for name, key in keys.items()
        if key is None or key in known
    }
    inside = sum(
        ms.get((item.rounded.usual.subject, item.rounded.usual.action), 0.0) for item in found
    )
    took = time.monotonic() - start
    products = counted(len(known), "product")
    products += f" timed in {took:.0f} s" if count else " timed before"
    return Clock(limit_ms, max(whole - inside, 0.0), shape, products, ms)


def _timed(
    usual: ir.Model,
    shape: str,
    feeds: Feeds,
    forms: Mapping[tuple[_Shape, str], Any],
    model: ir.Model,
    ctx: PassContext,
) -> tuple[float | None, dict[tuple[_Shape, str], float], int]:
    """Time the usual model and its products, apart from what an earlier trial has timed.

    Returns:
        Milliseconds of the model, of each product that was timed, and how many runs were timed now.
    """
    print_, opset = Model(usual).fingerprint(), opset_of(model)
    # The model itself first: without it there is nothing to compare with.
    keys: list[dict[str, object]] = [{"model": print_, "at": shape}]
    keys += [{"product": product, "form": form, "opset": opset} for product, form in forms]
    kept = [ctx.tables.find(_TIMES, **key) for key in keys]
    ms = [None if one is None else one["ms"] for one in kept]
    missing: list[tuple[int, Timed]] = [] if ms[0] is not None else [(0, Timed(usual, feeds))]
    for place, (product, form) in enumerate(forms, 1):
        if ms[place] is None:
            written = _written(product, forms[product, form], model, ctx)
            if written is not None:
                missing.append((place, Timed(written, _inputs(product))))
    if missing:
        found = time_several_models(
            [timed for _, timed in missing],
            ctx.target,
            ctx.threads,
            seconds=_SECONDS,
            progress=ctx.progress,
        )
        for (place, _), one in zip(missing, found, strict=True):
            ms[place] = one
            if one is not None:
                ctx.tables.put(_TIMES, {"ms": one}, **keys[place])
    known = {key: one for key, one in zip(forms, ms[1:], strict=True) if one is not None}
    return ms[0], known, len(missing)


def _form_key(made: WeightDecision) -> str:
    data = {k: v for k, v in made.form.to_data().items() if k != "outliers"}
    return json.dumps({**data, "outliers": len(getattr(made.form, "outliers", ()))}, sort_keys=True)


def _shape(weight: Weight, flops: Mapping[str, int]) -> _Shape | None:
    """Return what is timed of a weight; None where it is only looked up in, or a kernel of Conv."""
    kinds = kinds_of(weight)
    products = [use for use in weight.uses if use.kind in ("matmul", "gemm")]
    if not products or "conv" in kinds:
        return None
    axis = products[0].axis
    shape = [int(d) for d in weight.tensor.shape.numpy()]
    channels, inner = shape[axis], shape[1 - axis]
    rows = max(flops.get(use.output.name or "", 0) for use in products) // (2 * channels * inner)
    return _Shape(max(rows, 1), inner, channels, "gather" in kinds)


def _product(shape: _Shape, opset: int) -> ir.Model:
    """Return a model of one product by a drawn weight, and of a lookup in it where it is tied."""
    rng, real = np.random.default_rng(0), ir.TensorType(ir.DataType.FLOAT)
    size = (shape.channels, shape.inner) if shape.tied else (shape.inner, shape.channels)
    array = rng.standard_normal(size, np.float32) / np.float32(np.sqrt(shape.inner))
    inputs = [ir.Value(name="x", type=real, shape=ir.Shape((shape.rows, shape.inner)))]
    if shape.tied:
        whole = ir.TensorType(ir.DataType.INT64)
        inputs.append(ir.Value(name="ids", type=whole, shape=ir.Shape((1,))))
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": opset}, name="product")
    model = ir.Model(graph, ir_version=10)
    editor = Editor(model, "times")
    weight = factor = editor.constant("w", array)

    def add(op: str, taken: list[ir.Value], name: str, *size: int) -> ir.Value:
        outputs = {name: ir.DataType.FLOAT}
        return editor.append(graph, op, taken, outputs=outputs, shape=ir.Shape(size))

    if shape.tied:
        graph.outputs.append(add("Gather", [weight, inputs[1]], "row", 1, shape.inner))
        factor = add("Transpose", [weight], "turned", shape.inner, shape.channels)
    product = add("MatMul", [inputs[0], factor], "y", shape.rows, shape.channels)
    graph.outputs.insert(0, product)
    return model


def _inputs(shape: _Shape) -> dict[str, np.ndarray]:
    x = np.random.default_rng(1).standard_normal((shape.rows, shape.inner), np.float32)
    return {"x": x, "ids": np.zeros(1, np.int64)} if shape.tied else {"x": x}


def _written(shape: _Shape, form: Any, model: ir.Model, ctx: PassContext) -> ir.Model | None:
    """Return a product in a form; None where it cannot be written for one alone."""
    made = _product(shape, max(opset_of(model), form.opset))
    capabilities = ctx.target.capabilities
    decision: Decision | Reason
    if isinstance(form, StoredForm):
        weight = next(w for w in find_stored(made).weights if w.name == "w")
        decision = form.decide(weight, Evidence(capabilities))
    else:
        assert isinstance(form, WeightForm)
        site = next(w for w in find_sites(made).weights if w.name == "w")
        decision = form.decide(site, _evidence(site, form, ctx))
    if isinstance(decision, Reason):
        return None
    apply_decisions(Desk(made, "times", capabilities), [read_decision(decision)])
    return made


def _evidence(site: Weight, form: WeightForm, ctx: PassContext) -> Evidence:
    """Return ranges as of normal activations, and as many channels in float32 as the form has."""
    signed = ctx.target.capabilities.int8_activation == "s8-symmetric"
    spec = ACTIVATION_S8 if signed else ACTIVATION_U8
    qparams = qparams_from_range(-_PEAK, _PEAK, spec)
    x = next(use.activation for use in site.uses if use.kind != "gather")
    inner = int(site.tensor.shape.numpy()[1 - site.uses[0].axis])
    facts = ActivationFacts(
        qparams,
        mean=np.zeros(inner),
        square=np.ones(inner),
        peaks=np.full(inner, _PEAK, np.float32),
    )
    return Evidence(ctx.target.capabilities, {x: facts}, {x: getattr(form, "outliers", ())})
