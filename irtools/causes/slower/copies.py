"""Work that computes nothing: copies into another layout, casts, shapes of open axes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from irtools.causes import commands
from irtools.causes.facts import Facts
from irtools.causes.finding import Cause, Finding, Gap
from irtools.causes.rows import CASTS, LAYOUTS, Joined, joined, total
from irtools.model import Model
from irtools.words import counted

__all__ = ["Casts", "LayoutCopies", "OpenSizes"]

_FEW = 0.02
_SHAPES = frozenset(
    {
        "Broadcast",
        "Concat",
        "Concatenation",
        "ConstantOfShape",
        "Expand",
        "Gather",
        "Range",
        "Reshape",
        "Shape",
        "ShapeOf",
        "Slice",
        "Squeeze",
        "StridedSlice",
        "Unsqueeze",
    }
)


class LayoutCopies(Cause):
    """Kernels that move data into the order that the next kernel takes."""

    name: ClassVar[str] = "layout-copies"
    gap: ClassVar[Gap] = Gap.SLOWER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where they take longer than in the first model."""
        yield from _more(self, facts, LAYOUTS, "move data into another layout", "cleanup,fuse")


class Casts(Cause):
    """Kernels that convert numbers into another type, as around float16 on a CPU."""

    name: ClassVar[str] = "casts"
    gap: ClassVar[Gap] = Gap.SLOWER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where they take longer than in the first model."""
        yield from _more(self, facts, CASTS, "convert between types", "cleanup,store")


class OpenSizes(Cause):
    """Axes that the first model fixes and the second leaves open."""

    name: ClassVar[str] = "open-sizes"
    gap: ClassVar[Gap] = Gap.SLOWER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where the second model has open axes that the first has not."""
        fixed, sizes = _sizes(facts.first.model), _sizes(facts.second.model)
        opened = [
            axis
            for axis, size in sizes.items()
            if not isinstance(size, int) and isinstance(fixed.get(axis), int)
        ]
        both = joined(facts)
        if not opened or both is None:
            return
        growth = both.growth(_SHAPES)
        words = [word for axis in opened for word in ("--fix", f"{axis}={fixed[axis]}")]
        yield self.finding(
            f"{counted(len(opened), 'axis', 'axes')} fixed in {facts.first.name} "
            f"{'is' if len(opened) == 1 else 'are'} open in {facts.second.name}: shapes are "
            "computed at each run",
            max(0.0, growth),
            f"open: {', '.join(opened)}",
            f"kernels about shapes take {growth:+.2f} ms",
            command=commands.quoted(
                "irc", "compile", facts.second.name, *words, "-t", facts.target.name, "-o", "FOLDER"
            ),
            subjects=tuple(opened),
        )


def _more(
    cause: Cause, facts: Facts, kernels: frozenset[str], what: str, remedy: str
) -> Iterator[Finding]:
    both = joined(facts)
    if both is None or not total(both.second.rows):
        return
    more = both.growth(kernels)
    rows = both.second.of_kernels(kernels)
    if not rows or more < _FEW * total(both.second.rows):
        return
    before = both.first.of_kernels(kernels)
    yield cause.finding(
        f"{counted(len(rows), 'kernel')} {what}, {len(before)} before",
        more,
        f"they take {total(rows):.2f} ms, before {total(before):.2f} ms",
        *_new_ones(both, kernels),
        command=commands.quoted("irc", "optimize", facts.second.name, "--passes", remedy)
        if remedy == "cleanup,fuse"
        else commands.optimize(facts, remedy),
        subjects=tuple(row.node for row in rows[:5]),
    )


def _new_ones(both: Joined, kernels: frozenset[str]) -> Iterator[str]:
    known = {row.node for row in both.first.rows}
    fresh = [row for row in both.second.of_kernels(kernels) if row.node not in known]
    if fresh:
        yield f"the most expensive new one: {fresh[0].node} ({fresh[0].op}) {fresh[0].ms:.3f} ms"


def _sizes(model: Model) -> dict[str, int | str | None]:
    """Return the sizes of the axes of the inputs, by the names that `--fix` takes."""
    return {
        f"{info.name}.{axis}": size
        for info in model.interface.inputs
        for axis, size in enumerate(info.shape or ())
    }
