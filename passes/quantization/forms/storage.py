"""Weights that are stored in 8 bits and multiplied in floating point.

    int8 W -> Cast to float32 -> Mul by scale [.., 1, ..] -> (Cast to the model's type) -> readers

Runtimes compute this once, when they load the model, so that the file has a quarter of the size
and the model the speed and the kernels of the original. Measured on ONNX Runtime 1.31 and OpenVINO
2026.4, in front of Conv, ConvTranspose, LSTM, GRU, MatMul (left, right, batched) and Einsum:

- ONNX Runtime does not fold a DequantizeLinear (it keeps them for integer kernels, unless
  `session.disable_quant_qdq` is set, which turns off all integer kernels): it expands the weight at
  each run, and a Conv loses its blocked layout. It folds Cast and Mul from the first level on,
  in bodies of Loop and branches of If too, and in functions, which it inlines.
- OpenVINO expands both forms when it compiles; products by a matrix keep the integers.

The weight stays where it is, in the main graph or in a body: folded there, it lets the runtime
choose the same kernels as before. In front of the Loop it would be folded as well, but be passed
to the body as a value that OpenVINO's kernels cannot pack. With all optimizations off it is
expanded at every run, of a body too: equal numbers, at the price of time.

Where OpenVINO misreads integers that it keeps, a Cast to int32 before the one to float32 hides them
from it, and is folded in both runtimes (`hidden_integers`).

Two scale axes cost nothing here (DequantizeLinear has one): each direction of a recurrent layer
has scales of its own. Standard operators since opset 7.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from irtools.analysis.provenance import module_of, selects
from irtools.editing import Editor
from irtools.errors import UsageError
from irtools.model import iter_nodes, release_tensor, subgraphs
from irtools.passes.quantization.forms.decisions import UseDecision, WeightDecision
from irtools.passes.quantization.ranges.arithmetic import QParams, dequantize, quantize_weight
from irtools.passes.quantization.ranges.blocks import is_finite
from irtools.passes.quantization.ranges.spec import PerAxes, weight_spec
from irtools.passes.quantization.sites.selection import is_telling
from irtools.passes.quantization.sites.slots import Axes
from irtools.passes.quantization.sites.stored import StoredWeight, find_stored
from irtools.passes.quantization.write.hidden_integers import hides_integers
from irtools.passmanager import Decision
from irtools.words import counted

__all__ = [
    "HALF_BITS",
    "StoragePlanner",
    "StorageWriter",
    "count_stored",
    "find_stored_weight",
    "stored_values",
]

_MOST_ERROR = 1e-3
"""30 dB of the weight. Scales that keep less are dominated by few large elements."""

HALF_BITS = 16
"""`WeightDecision.bits` of a weight that is stored in float16."""

_SHARE = 2000
_LEAST_SHARE = 16


@dataclass
class StoragePlanner:
    """Decides which weights are stored in 8 bits.

    Attributes:
        exclude: Patterns over module, node and value names.
        min_size: Fewer elements stay in floating point, in models much larger than that. Where
            all weights together have fewer than 2000 times as many, the limit is lower, down to a
            16th: what is a small weight of a large model is most of a small one.
        tables: Also tables that are looked up in.
        integer_recurrent: Recurrent operators that the target multiplies in integers.
        kernels_need_data: With calibration data, kernels of Conv would be multiplied in int8.
        skipped: Counts of what is left alone, by counter.
        notes: Sentences for the report.
    """

    exclude: tuple[str, ...]
    min_size: int
    tables: bool = True
    integer_recurrent: frozenset[str] = frozenset()
    kernels_need_data: bool = False
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def decide(self, model: ir.Model, taken: Collection[str]) -> tuple[Decision, ...]:
        """Make one decision per weight.

        Args:
            model: Stays as it is.
            taken: Names of weights of the main graph that have another form.
        """
        sites = find_stored(model, self.min_size)
        least = min(self.min_size, max(sites.total // _SHARE, self.min_size // _LEAST_SHARE))
        self.skipped.update(sites.skipped)
        made = []
        kernels = 0
        for weight in sites.weights:
            if not weight.scope and weight.name in taken:
                continue
            decision = self._decision(weight, least)
            if isinstance(decision, str):
                self.skipped[decision] += 1
            else:
                made.append(decision)
                kernels += weight.kind == "conv"
        if kernels and self.kernels_need_data:
            self.notes.append(
                f"stored in 8 bits and multiplied in float32: {counted(kernels, 'Conv weight')}; "
                "int8 kernels need ranges: give calibration data, or mode=static"
            )
        return tuple(made)

    def _decision(self, weight: StoredWeight, least: int) -> Decision | str:
        """Decide about one weight; or the counter under which it is left alone."""
        names = names_of_stored(weight)
        if selects(self.exclude, names) is not None:
            return "num-skipped-excluded"
        if weight.kind == "lookup" and not self.tables:
            return "num-skipped-embedding"
        if weight.size < least:
            return "num-skipped-small"
        array = weight.array()
        if not is_finite(array):
            self.notes.append(f"{names[0]!r} holds NaN or infinity: left in float32")
            return "num-skipped-nonfinite"
        axes, error = _best(array, weight.proposals)
        release_tensor(weight.tensor)
        if error > _MOST_ERROR:
            return "num-skipped-precision"
        return self._write_down(weight, names[0], axes, error)

    def _write_down(self, weight: StoredWeight, subject: str, axes: Axes, error: float) -> Decision:
        shape = weight.tensor.shape.numpy()
        scales = int(np.prod([shape[axis] for axis in axes]))
        uses = tuple(UseDecision(node.outputs[0].name or "") for node in weight.readers)
        integers = {node.op_type for node in weight.readers} <= self.integer_recurrent
        arithmetic = (
            "activations quantized at run time" if integers else "stored, expanded at loading"
        )
        return Decision(
            subject=subject,
            action=f"s8 {_granularity(weight, axes)}, {arithmetic}",
            cost=float(f"{error:.4g}"),
            gain=float(weight.tensor.nbytes - weight.size - 4 * scales),
            data=WeightDecision(
                weight.name, "storage", 8, uses, scope=weight.scope, axes=axes
            ).to_data(),
        )


class StorageWriter:
    """Stores weights of one model in 8 bits, each in its own graph."""

    def __init__(self, model: ir.Model, editor: Editor) -> None:
        self._editor = editor
        self._carriers = {inner: node for node in iter_nodes(model) for inner in subgraphs(node)}

    def halve(self, weight: StoredWeight) -> None:
        """Replace a float32 weight by one in float16 and a Cast, for all its readers."""
        old = weight.value
        half = self._constant(old, f"{weight.name}_half", weight.array().astype(np.float16))
        new = self._cast(self._anchor(old), half, f"{weight.name}_restored", weight.tensor.dtype)
        self._editor.forward(old, new)
        self._editor.drop_unread(old)

    def write(self, weight: StoredWeight, axes: Axes) -> None:
        """Replace a weight by integers and what expands them, for all its readers."""
        integers, q = _quantize(weight.array(), axes)
        old = weight.value
        anchor = self._anchor(old)
        table = self._constant(old, f"{weight.name}_quantized", integers)
        scale = self._constant(old, f"{weight.name}_scale", q.scale)
        wide = table
        if hides_integers(weight, axes):
            wide = self._cast(anchor, table, f"{weight.name}_wide", ir.DataType.INT32)
        new = self._cast(anchor, wide, f"{weight.name}_integers", ir.DataType.FLOAT)
        new = self._editor.before(
            anchor,
            "Mul",
            [new, scale],
            outputs={f"{weight.name}_dequantized": ir.DataType.FLOAT},
            shape=ir.Shape(integers.shape),
        )
        if weight.tensor.dtype != ir.DataType.FLOAT:
            new = self._cast(anchor, new, f"{weight.name}_restored", weight.tensor.dtype)
        self._editor.forward(old, new)
        self._editor.drop_unread(old)

    def _anchor(self, old: ir.Value) -> ir.Node:
        """Return the node before which that goes what takes the place of a weight."""
        return old.producer() or self._first_reader(old)

    def _first_reader(self, value: ir.Value) -> ir.Node:
        """Return the first node of the value's graph that reads it, itself or in its bodies."""
        readers = {self._ancestor(node, value.graph) for node, _ in value.uses()}
        assert value.graph is not None
        return next(node for node in value.graph if node in readers)

    def _ancestor(self, node: ir.Node, graph: object) -> ir.Node:
        """Return the node of `graph` that `node` is, or is inside of."""
        while node.graph is not graph:
            assert isinstance(node.graph, ir.Graph)
            node = self._carriers[node.graph]
        return node

    def _constant(self, old: ir.Value, name: str, array: np.ndarray) -> ir.Value:
        """Add a constant next to the weight, as an initializer or a node as the weight is."""
        graph = old.graph
        assert isinstance(graph, ir.Graph)
        return self._editor.constant(name, array, graph=graph, before=old.producer())

    def _cast(self, anchor: ir.Node, value: ir.Value, name: str, to: ir.DataType) -> ir.Value:
        return self._editor.before(
            anchor, "Cast", [value], {"to": to.value}, outputs={name: to}, shape=value.shape
        )


def find_stored_weight(
    decision: WeightDecision, weights: Mapping[tuple[str, str], StoredWeight]
) -> StoredWeight:
    """Return the weight that a decision about storage is about.

    Raises:
        UsageError: The model has no such weight, or it is read by other nodes.
    """
    weight = weights.get((decision.scope, decision.weight))
    wanted = {use.output for use in decision.uses}
    if weight is None or {node.outputs[0].name for node in weight.readers} != wanted:
        where = f" in {decision.scope!r}" if decision.scope else ""
        raise UsageError(
            f"the plan does not fit the model: it has no floating-point weight "
            f"{decision.weight!r}{where} read by {', '.join(map(repr, sorted(wanted)))}; make a "
            "new plan"
        )
    rank = len(weight.tensor.shape)
    if any(not 0 <= axis < rank for axis in decision.axes):
        raise UsageError(
            f"the plan does not fit the model: {decision.weight!r} has {rank} axes, the plan "
            f"scales it along {list(decision.axes)}; make a new plan"
        )
    return weight


def stored_values(weight: StoredWeight, decision: WeightDecision) -> np.ndarray:
    """Return what readers of a weight see once it was stored as a decision says."""
    array = weight.array()
    if decision.bits == HALF_BITS:
        return array.astype(np.float16).astype(array.dtype)
    integers, q = _quantize(array, decision.axes)
    return dequantize(integers, q).astype(array.dtype)


def count_stored(weight: StoredWeight) -> str:
    """Return the counter under which a stored weight is counted."""
    if weight.scope:
        return "num-stored-subgraph"
    return {"conv": "num-stored-conv", "recurrent": "num-stored-recurrent"}.get(
        weight.kind, "num-stored-other"
    )


def names_of_stored(weight: StoredWeight) -> Sequence[str]:
    """Return every name by which a user may know a weight, the most specific first."""
    names = [module for node in weight.readers if (module := module_of(node))]
    names += [weight.name] if is_telling(weight.name) else []
    for node in weight.readers:
        names += [node.name or "", *(value.name or "" for value in node.outputs)]
    return tuple(dict.fromkeys(name for name in (*names, weight.name) if name))


def _quantize(array: np.ndarray, axes: Axes) -> tuple[np.ndarray, QParams]:
    return quantize_weight(array, weight_spec(PerAxes(axes)))


def _best(array: np.ndarray, proposals: Sequence[Axes]) -> tuple[Axes, float]:
    """Return the axes that lose least, and the relative squared error of the weight."""
    found = {axes: _error(array, axes) for axes in proposals}
    best = min(found, key=lambda axes: found[axes])
    return best, found[best]


def _error(array: np.ndarray, axes: Axes) -> float:
    difference = dequantize(*_quantize(array, axes)).reshape(-1)
    values = array.astype(np.float32, copy=False).reshape(-1)
    difference -= values
    # In units of the largest value: squares of weights near the float limit overflow.
    top = np.float32(max(values.max(initial=0.0), -values.min(initial=0.0))) or np.float32(1)
    values, difference = values / top, difference / top
    signal = float(np.dot(values, values))
    return float(np.dot(difference, difference)) / signal if signal else 0.0


def _granularity(weight: StoredWeight, axes: Axes) -> str:
    if weight.kind == "recurrent" and axes == (0, 1):
        return "per gate row"
    return {0: "per tensor", 1: f"per index of axis {axes[0] if axes else 0}"}.get(
        len(axes), f"per index of axes {', '.join(map(str, axes))}"
    )
