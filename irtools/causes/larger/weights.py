"""Weights that are stored twice, wider than they could be, or were no weights before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from irtools.causes import commands
from irtools.causes.facts import Facts
from irtools.causes.finding import Cause, Finding, Gap
from irtools.causes.weights import Constant, by_type, copies, weights_of
from irtools.words import counted, size_text

__all__ = ["FoldedConstants", "FloatWeights", "RepeatedWeights", "WiderWeights"]

_FLOATS = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
_SHARE = 0.02


class RepeatedWeights(Cause):
    """A weight that is in the file several times, as it is or transposed."""

    name: ClassVar[str] = "repeated-weights"
    gap: ClassVar[Gap] = Gap.LARGER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where the second model repeats more than the first."""
        before = _wasted(copies(weights_of(facts.first.model)))
        groups = copies(weights_of(facts.second.model))
        more = _wasted(groups) - before
        if more <= 0:
            return
        largest = max(groups, key=lambda group: group[0].bytes * (len(group) - 1))
        shared = [
            weight
            for weight in weights_of(facts.first.model)
            if weight.uses > 1 and weight.bytes >= largest[0].bytes
        ]
        yield self.finding(
            f"{counted(len(groups), 'weight')} {'is' if len(groups) == 1 else 'are'} in the file "
            f"more than once: {size_text(more)} of copies",
            float(more),
            f"{' = '.join(w.name for w in largest[:3])}: {_shape(largest[0])} "
            f"{largest[0].dtype}, {size_text(largest[0].bytes)} each (equal, or transposed)",
            *(
                f"{facts.first.name} has it once: {w.name}, {counted(w.uses, 'reader')}"
                for w in shared[:1]
            ),
            command=commands.quoted(
                "irc", "optimize", facts.second.name, "--passes", "deduplicate-initializers"
            ),
            subjects=tuple(weight.name for weight in largest),
        )


class WiderWeights(Cause):
    """Modules whose weights take more bytes than before."""

    name: ClassVar[str] = "wider-weights"
    gap: ClassVar[Gap] = Gap.LARGER
    is_place: ClassVar[bool] = True

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield the modules that grew most."""
        before, after = (_by_module(facts, side) for side in (0, 1))
        growth = {m: sum(after[m].values()) - sum(before[m].values()) for m in after if m in before}
        least = _SHARE * facts.second.file_bytes
        for module in sorted(growth, key=lambda m: -growth[m])[:3]:
            if growth[module] <= least:
                return
            yield self.finding(
                f"the weights of {module or 'no module'} take "
                f"{size_text(sum(after[module].values()))}, before "
                f"{size_text(sum(before[module].values()))}",
                float(growth[module]),
                f"before {_types(before[module])}, now {_types(after[module])}",
                command=commands.quoted("irc", "inspect", facts.second.name),
                subjects=(module,),
            )


class FloatWeights(Cause):
    """Weights that stayed in floating point in a model with smaller ones."""

    name: ClassVar[str] = "float-weights"
    gap: ClassVar[Gap] = Gap.LARGER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where a quantized model still holds many bytes of floats."""
        weights = weights_of(facts.second.model)
        sizes = by_type(weights)
        small = sum(n for dtype, n in sizes.items() if dtype in ("int8", "uint8", "int4", "uint4"))
        floats = [w for w in weights if w.dtype in _FLOATS]
        could = sum(w.bytes - w.bytes // _FLOATS[w.dtype] for w in floats)
        if small < _SHARE * sum(sizes.values()) or could < 0.1 * facts.second.file_bytes:
            return
        largest = sorted(floats, key=lambda w: -w.bytes)
        yield self.finding(
            f"{size_text(sum(w.bytes for w in floats))} of weights stay in floating point",
            float(could),
            *(f"{w.name}: {_shape(w)} {w.dtype}, {size_text(w.bytes)}" for w in largest[:3]),
            command=commands.optimize(
                facts, "cleanup,fuse,int8", "--calibrate", facts.data or "DATA"
            ),
            subjects=tuple(w.name for w in largest[:5]),
        )


class FoldedConstants(Cause):
    """Large constants that the first model computes, and the second holds."""

    name: ClassVar[str] = "folded-constants"
    gap: ClassVar[Gap] = Gap.LARGER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where there are constants of new names and new content."""
        known = weights_of(facts.first.model)
        names = {w.name for w in known}
        shapes = {(_shape(w), w.dtype) for w in known} | {(_shape(w, True), w.dtype) for w in known}
        sizes = {tuple(sorted(map(int, w.tensor.shape.numpy()))) for w in known}
        new = [
            w
            for w in weights_of(facts.second.model)
            if w.name not in names
            and (_shape(w), w.dtype) not in shapes
            and tuple(sorted(map(int, w.tensor.shape.numpy()))) not in sizes
        ]
        total = sum(w.bytes for w in new)
        if total < _SHARE * facts.second.file_bytes:
            return
        largest = sorted(new, key=lambda w: -w.bytes)
        yield self.finding(
            f"{counted(len(new), 'constant')} of {size_text(total)} "
            f"{'is' if len(new) == 1 else 'are'} computed in {facts.first.name} and stored in "
            f"{facts.second.name}",
            float(total),
            *(f"{w.name}: {_shape(w)} {w.dtype}, {size_text(w.bytes)}" for w in largest[:3]),
            command=commands.optimize(facts, "fold-constants"),
            subjects=tuple(w.name for w in largest[:5]),
        )


def _wasted(groups: list[list[Constant]]) -> int:
    return sum(group[0].bytes * (len(group) - 1) for group in groups)


def _shape(weight: Constant, turned: bool = False) -> str:
    sizes = list(map(str, weight.tensor.shape.numpy()))
    return "x".join(sizes[::-1] if turned else sizes) or "1"


def _types(sizes: Counter[str]) -> str:
    return ", ".join(f"{size_text(n)} {dtype}" for dtype, n in sizes.most_common()) or "nothing"


def _by_module(facts: Facts, side: int) -> dict[str, Counter[str]]:
    """Return bytes by module and element type."""
    subject = (facts.first, facts.second)[side]
    modules = facts.pairing.modules[side]
    found: dict[str, Counter[str]] = {}
    for weight in weights_of(subject.model):
        module = modules.get(weight.reader, "")
        found.setdefault(module, Counter())[weight.dtype] += weight.bytes
    return found
