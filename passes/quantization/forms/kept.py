"""Which weights keep the grid that they lie on, and what a report says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import onnx_ir as ir

from irtools.editing import maker_of
from irtools.model import noted_grids
from irtools.passes.quantization.forms.choose import Chosen, EmbeddingBits
from irtools.passes.quantization.forms.grids import GridForm, GridProduct, Grids, GridTable
from irtools.passes.quantization.sites.uses import Weight
from irtools.words import counted

__all__ = ["Keeping", "KeptGrids", "kept_notes", "lost_notes"]

KeptGrids: TypeAlias = Literal["keep", "4", "none"]


@dataclass(frozen=True)
class Keeping:
    """Which grids are kept.

    Attributes:
        wanted: `keep`: all of them; `4`: those of 4 bits; `none`.
        embeddings: Bits of tables.
        found: Grids of weights, by name.
    """

    wanted: KeptGrids
    embeddings: EmbeddingBits
    found: Grids = field(default_factory=dict)

    def forms(self, weight: Weight) -> Iterator[GridForm]:
        """Yield the forms that keep the grid of a weight."""
        grid = self.found.get(weight.name)
        if grid is None:
            return
        if self.wanted == "keep" or grid.bits == 4:
            yield GridProduct.of(grid)
        if self.embeddings == "8" or grid.bits == 4:
            yield GridTable.of(grid)


def kept_notes(chosen: Sequence[Chosen]) -> Iterator[str]:
    """Yield what a report says of weights that keep their grids."""
    kept = [form for _, form in chosen if isinstance(form, GridForm)]
    for (bits, block), count in sorted(Counter((f.bits, f.block) for f in kept).items()):
        lie = "lies" if count == 1 else "lie"
        yield (
            f"{counted(count, 'weight')} {lie} on a grid of {bits} bits in blocks of {block}, and "
            "nothing is rounded there"
        )
    if any(form.bits == 8 and isinstance(form, GridProduct) for form in kept):
        yield "grids=4 rounds the weights on finer grids to 4 bits"


def lost_notes(model: ir.Model, weights: Sequence[Weight], found: Grids) -> Iterator[str]:
    """Yield what a report says of weights that came on a grid and lie on none now.

    Args:
        model: Its metadata say which weights came on grids.
        weights: What could be quantized.
        found: The grids that there are.
    """
    noted = noted_grids(model)
    lost: dict[tuple[str, str], list[str]] = {}
    for weight in weights:
        grid = _noted(noted, weight.name)
        if grid is not None and weight.name not in found:
            lost.setdefault((grid, maker_of(weight.value)), []).append(weight.name)
    for (grid, maker), names in sorted(lost.items()):
        who = f"`{maker}` changed" if maker else "an adapter or an earlier run changed"
        them = "it" if len(names) == 1 else "them"
        instead = f": run int4 before {maker}, or leave {maker} out" if maker else ""
        yield (
            f"{counted(len(names), 'weight')} came on a grid ({grid}) and no longer "
            f"{'lies' if len(names) == 1 else 'lie'} on one, {names[0]!r} first, because {who} "
            f"{them}; rounded again{instead}"
        )


def _noted(noted: dict[str, str], name: str) -> str | None:
    """Return the grid of a weight, or of the one that it was made of: passes add to names."""
    fitting = [n for n in noted if name == n or name.startswith(f"{n}_")]
    return noted[max(fitting, key=len)] if fitting else None
