"""What the runtime did not fuse, or computes in floating point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.int8_products import int8_products
from irtools.analysis.pairing import node_ids
from irtools.causes import commands
from irtools.causes.facts import Facts
from irtools.causes.finding import Cause, Finding, Gap
from irtools.causes.rows import GEMMS, INTEGER_MARKS, QUANTIZERS, Placed, joined, kernel_of, total
from irtools.editing import constant_of, producer_of
from irtools.measure.profile import NodeProfile
from irtools.words import counted

__all__ = ["FloatFallback", "LeftInFloat", "LostFusion", "UnfusedPairs"]

_FEW = 0.02
"""Share of a run below which a cause is not worth a line."""
_WEIGHTED = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}


class FloatFallback(Cause):
    """Operators between quantization pairs that the runtime computes in floating point."""

    name: ClassVar[str] = "float-fallback"
    gap: ClassVar[Gap] = Gap.SLOWER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where the runtime reports such operators."""
        if facts.kernels is None or not facts.kernels[1].float_fallbacks:
            return
        names = facts.kernels[1].float_fallbacks
        both, amount, evidence = joined(facts), None, list(_by_operator(facts, names))
        if both is not None:
            there = both.of_modules({both.module_of(1, name) for name in names} - {""})
            rows = [row for row in both.second.rows if row.node in names] or list(there.second)
            pairs = both.second.of_kernels(QUANTIZERS)
            amount = total(rows) + total(pairs)
            evidence += [
                f"they take {total(rows):.2f} ms, and {counted(len(pairs), 'kernel')} that only "
                f"quantize and dequantize {total(pairs):.2f} ms",
                f"int8 kernels of the whole model: {facts.kernels[1].int8}",
            ]
        yield self.finding(
            f"{counted(len(names), 'operator')} meant to be int8 "
            f"{'runs' if len(names) == 1 else 'run'} in floating point on {facts.target.name}",
            amount,
            *evidence,
            command=commands.optimize(facts, "cleanup,fuse,int8", "--calibrate", _data(facts)),
            subjects=tuple(names[:5]),
        )


class UnfusedPairs(Cause):
    """Kernels that only quantize and dequantize: their neighbour did not take them in."""

    name: ClassVar[str] = "unfused-pairs"
    gap: ClassVar[Gap] = Gap.SLOWER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where they take time that the first model does not spend."""
        both = joined(facts)
        if both is None:
            return
        rows = both.second.of_kernels(QUANTIZERS)
        more = both.growth(QUANTIZERS)
        if not rows or more < _FEW * total(both.second.rows):
            return
        kinds = Counter(kernel_of(row) for row in rows)
        counts = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
        readers = _readers(both.second, facts)
        yield self.finding(
            f"{counted(len(rows), 'kernel')} only quantize or dequantize: the runtime fused them "
            "with nothing",
            more,
            f"{counts}: {total(rows):.2f} ms of {total(both.second.rows):.2f} ms",
            *([f"next to {readers}"] if readers else []),
            f"the most expensive: {rows[0].node} {rows[0].ms:.3f} ms",
            command=commands.optimize(facts, "cleanup,fuse,int8", "--calibrate", _data(facts)),
            subjects=tuple(row.node for row in rows[:5]),
        )


class LeftInFloat(Cause):
    """Products and convolutions that were not quantized, in a model that is otherwise int8."""

    name: ClassVar[str] = "left-in-float"
    gap: ClassVar[Gap] = Gap.SLOWER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding per operator whose float kernels take a good part of the run."""
        both = joined(facts)
        model = facts.second.model.ir
        quantized = {product.node for product in int8_products(model)}
        if both is None or not (quantized or _has_integers(model)):
            return
        ids = node_ids(model)
        fallbacks = set(facts.kernels[1].float_fallbacks if facts.kernels else ())
        floats: dict[str, set[str]] = {}
        for node, name in ids.items():
            if node not in quantized and name not in fallbacks and _has_float_weight(node):
                floats.setdefault(node.op_type, set()).add(name)
        for op, names in floats.items():
            rows = [row for row in both.second.of_nodes(names) if _is_float(row)]
            if total(rows) < 0.1 * total(both.second.rows):
                continue
            rest = total(both.second.rows)
            yield self.finding(
                f"{counted(len(rows), op)} stay in floating point: they were not quantized",
                total(rows),
                f"they take {total(rows):.2f} ms of {rest:.2f} ms",
                f"the most expensive: {rows[0].node} ({rows[0].op}) {rows[0].ms:.2f} ms",
                command=commands.optimize(facts, "cleanup,fuse,int8", "--calibrate", _data(facts)),
                subjects=tuple(row.node for row in rows[:5]),
            )


class LostFusion(Cause):
    """Attention that was one kernel and is several now."""

    name: ClassVar[str] = "lost-fusion"
    gap: ClassVar[Gap] = Gap.SLOWER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where the second model has fewer fused attention kernels."""
        if facts.kernels is None:
            return
        before, after = (report.fused_attention for report in facts.kernels)
        both = joined(facts)
        if after >= before or both is None:
            return
        kinds = ("Attention", "MultiHeadAttention", "GroupQueryAttention", "SDPA")
        wanted = [row for row in both.first.rows if any(kind in row.op for kind in kinds)]
        places = [n for row, n in zip(both.first.rows, both.first.nodes, strict=True)
                  if row in wanted]  # fmt: skip
        there = both.of_modules({both.module_of(0, name) for name in places} - {""})
        yield self.finding(
            f"attention is no longer one kernel: {before} before, {after} now",
            max(0.0, there.more_ms),
            f"its modules take {there.second_ms:.2f} ms, before {there.first_ms:.2f} ms",
            command=commands.quoted("irc", "optimize", facts.second.name, "--passes", "fuse"),
            subjects=tuple(places[:5]),
        )


def _data(facts: Facts) -> str:
    return facts.data or "DATA"


def _by_operator(facts: Facts, names: tuple[str, ...]) -> Iterator[str]:
    """Say how many of each operator fell back."""
    ids = {name: node for node, name in node_ids(facts.second.model.ir).items()}
    counts = Counter(ids[name].op_type for name in names if name in ids)
    if counts:
        yield ", ".join(f"{number} {op}" for op, number in counts.most_common())


def _readers(placed: Placed, facts: Facts) -> str:
    """Return the operators that the pairs stand in front of or after."""
    ids = {name: node for node, name in node_ids(facts.second.model.ir).items()}
    found: Counter[str] = Counter()
    for row, name in zip(placed.rows, placed.nodes, strict=True):
        node = ids.get(name)
        if node is None or kernel_of(row) not in QUANTIZERS:
            continue
        if node.op_type == "QuantizeLinear":
            producer = None if node.inputs[0] is None else node.inputs[0].producer()
            found.update([] if producer is None else [producer.op_type])
        else:
            found.update(use.node.op_type for value in node.outputs for use in value.uses())
    found.pop("DequantizeLinear", None)
    found.pop("QuantizeLinear", None)
    return ", ".join(f"{op} ({number})" for op, number in found.most_common(4))


def _has_integers(model: ir.Model) -> bool:
    from irtools.model import iter_nodes

    wanted = ("ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat")
    return any(node.op_type in wanted for node in iter_nodes(model))


def _has_float_weight(node: ir.Node) -> bool:
    """Whether a product takes a matrix or kernel of floats that is constant."""
    port = _WEIGHTED.get(node.op_type) if not node.domain else None
    if port is None or len(node.inputs) <= port:
        return False
    value = node.inputs[port]
    turned = producer_of(value, "Transpose")
    tensor = constant_of(value if turned is None else turned.inputs[0])
    return (
        tensor is not None
        and len(tensor.shape) >= 2
        and tensor.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    )


def _is_float(row: NodeProfile) -> bool:
    return kernel_of(row) in GEMMS and not row.op.endswith(INTEGER_MARKS)
