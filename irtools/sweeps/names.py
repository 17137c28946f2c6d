"""Folder names for many sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from irtools.driver.destination import stem_of
from irtools.errors import UsageError

__all__ = ["names_of"]


def names_of(sources: Sequence[str]) -> dict[str, str]:
    """Return a name for each source: its own, or with its folder's where others have the same.

    Raises:
        UsageError: A source is given twice, or two have the same name in folders of the same name.
    """
    doubled = [source for source, number in Counter(sources).items() if number > 1]
    if doubled:
        raise UsageError(f"{doubled[0]} is given twice")
    stems = Counter(map(stem_of, sources))
    found = {one: _longer(one) if stems[stem_of(one)] > 1 else stem_of(one) for one in sources}
    for name, number in Counter(found.values()).items():
        if number > 1:
            same = [source for source in sources if found[source] == name]
            raise UsageError(f"{' and '.join(same)} would have the same folder {name}: rename one")
    return found


def _longer(source: str) -> str:
    folder = Path(source.rstrip("/")).parent.name
    return f"{folder}-{stem_of(source)}" if folder else stem_of(source)
