"""Int8 that the runtime, or the CPU, is not fast at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.int8_operators import INTEGER_OPERATORS
from irtools.analysis.int8_products import int8_products
from irtools.analysis.pairing import node_ids
from irtools.causes import commands
from irtools.causes.facts import Facts
from irtools.causes.finding import Cause, Finding, Gap
from irtools.causes.rows import CASTS, LAYOUTS, QUANTIZERS, joined
from irtools.model import iter_nodes
from irtools.words import counted

__all__ = ["DynamicInt8", "IntegerConvolutions", "NoInt8Instructions"]

_DYNAMIC = frozenset(
    {
        ("", "ConvInteger"),
        ("", "MatMulInteger"),
        ("com.microsoft", "DynamicQuantizeMatMul"),
        ("com.microsoft", "MatMulIntegerToFloat"),
    }
)


class DynamicInt8(Cause):
    """Activations are quantized at run time, and the target has no kernels for that."""

    name: ClassVar[str] = "dynamic-int8"
    gap: ClassVar[Gap] = Gap.SLOWER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where the target's table says that it is not fast at it."""
        if facts.target.capabilities.int8_dynamic:
            return
        ids = node_ids(facts.second.model.ir)
        products = [ids[node] for node in ids if _is_dynamic(node)]
        if not products:
            return
        both = joined(facts)
        amount, evidence = None, [f"{counted(len(products), 'product')} quantized at run time"]
        if both is not None:
            modules = {both.module_of(1, name) for name in products} - {""}
            there = both.of_modules(modules)
            around = max(0.0, both.growth(CASTS | LAYOUTS | QUANTIZERS, modules))
            amount = max(0.0, there.more_ms) + around
            evidence += [
                f"their modules take {there.second_ms:.2f} ms, before {there.first_ms:.2f} ms",
                *there.kernels(),
                f"conversions and copies around them take {around:.2f} ms more",
            ]
        yield self.finding(
            f"{facts.target.name} dequantizes what is quantized at run time and multiplies in "
            "float32",
            amount,
            *evidence,
            command=commands.optimize(
                facts, "cleanup,fuse,int8:mode=static", "--calibrate", facts.data or "DATA"
            ),
            subjects=tuple(products[:5]),
        )


class NoInt8Instructions(Cause):
    """The CPU has no instructions for products of 8-bit integers."""

    name: ClassVar[str] = "no-int8-instructions"
    gap: ClassVar[Gap] = Gap.SLOWER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where int8 products gain little or nothing on the target's CPU."""
        isa = facts.target.isa
        products = _int8_nodes(facts)
        if isa.has_int8_dot or not products:
            return
        both, amount = joined(facts), None
        evidence = [f"{counted(len(products), 'int8 product')}; instruction set {isa.value}"]
        if both is not None:
            there = both.of_modules({both.module_of(1, name) for name in products} - {""})
            amount = max(0.0, there.more_ms)
            evidence += [
                f"their modules take {there.second_ms:.2f} ms, in float32 {there.first_ms:.2f} ms",
                *there.kernels(),
            ]
        if not facts.target.capabilities.int8_is_fast:
            evidence.append(f"{facts.target.name} is slower in int8 than in float32 on such CPUs")
        dots = "VNNI or AMX" if isa.is_x86 else "the dot product"
        yield self.finding(
            f"{isa.value} has no int8 dot product ({dots} has): int8 gains little or nothing",
            amount,
            *evidence,
            command=commands.optimize(facts, "cleanup,fuse,int8:mode=weight-only"),
            subjects=tuple(products[:5]),
        )


class IntegerConvolutions(Cause):
    """ConvInteger, which the runtime computes by a slow general kernel."""

    name: ClassVar[str] = "integer-convolution"
    gap: ClassVar[Gap] = Gap.SLOWER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where convolutions were quantized at run time."""
        ids = node_ids(facts.second.model.ir)
        nodes = [name for node, name in ids.items() if node.op_type == "ConvInteger"]
        both = joined(facts)
        if not nodes or both is None:
            return
        there = both.of_modules({both.module_of(1, name) for name in nodes} - {""})
        if there.more_ms <= 0:
            return
        yield self.finding(
            f"{counted(len(nodes), 'convolution')} quantized at run time (ConvInteger): the "
            "runtime has no fast kernel for it",
            there.more_ms,
            f"they take {there.second_ms:.2f} ms, in float32 {there.first_ms:.2f} ms",
            *there.kernels(),
            command=commands.optimize(
                facts, "cleanup,fuse,int8:mode=static", "--calibrate", facts.data or "DATA"
            ),
            subjects=tuple(nodes[:5]),
        )


def _is_dynamic(node: ir.Node) -> bool:
    """Whether a product takes activations that are quantized at run time."""
    if (node.domain, node.op_type) not in _DYNAMIC:
        return False
    if node.op_type == "DynamicQuantizeMatMul":
        return True
    producer = None if node.inputs[0] is None else node.inputs[0].producer()
    return producer is not None and producer.op_type == "DynamicQuantizeLinear"


def _int8_nodes(facts: Facts) -> list[str]:
    ids = node_ids(facts.second.model.ir)
    static = {product.node for product in int8_products(facts.second.model.ir)}
    others = {
        node
        for node in iter_nodes(facts.second.model.ir)
        if (node.domain, node.op_type) in INTEGER_OPERATORS or node.op_type == "ConvInteger"
    }
    return [name for node, name in ids.items() if node in static | others]
