"""Tables that passes measure in order to decide, kept for the trials of a search that ask again.

A table predicts or ranks: what a block of a model takes at some widths, by how much the outputs
move. What a report promises of a result is measured on that result, and never comes from here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from irtools.files import Store

if TYPE_CHECKING:
    from irtools.measure.cache import OutputCache

__all__ = ["Tables"]

_MOST = 256
"""Tables that one run remembers."""


class Tables:
    """Tables by all that decides them, in memory and, where there is a cache, between runs.

    Args:
        cache: Where tables are kept; None: they end with the run.
        identity: What decides every table of the run: target, runtime, CPU, threads, code.
    """

    def __init__(
        self, cache: OutputCache | None = None, identity: Mapping[str, object] | None = None
    ) -> None:
        self._cache = cache
        self._identity = {f"run {name}": value for name, value in (identity or {}).items()}
        self._known: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    def get(
        self, what: str, make: Callable[[], Mapping[str, Any]], /, **key: object
    ) -> Mapping[str, Any]:
        """Return a table, measured where that was not done before.

        Args:
            what: A word for what it holds.
            make: Measures it: mappings, lists, numbers, texts and arrays.
            key: What decides it besides the run.
        """
        found = self.find(what, **key)
        if found is None:
            found = make()
            self.put(what, found, **key)
        return found

    def find(self, what: str, /, **key: object) -> Mapping[str, Any] | None:
        """Return a table that was measured before; None: there is none."""
        name = self._name(what, key)
        if name in self._known:
            self._known.move_to_end(name)
            return self._known[name]
        found: Mapping[str, Any] | None = None if self._cache is None else self._cache.get(name)
        if found is not None:
            self._remember(name, found)
        return found

    def put(self, what: str, table: Mapping[str, Any], /, **key: object) -> None:
        """Keep a table."""
        name = self._name(what, key)
        self._remember(name, table)
        if self._cache is not None:
            self._cache.put(name, table)

    def _name(self, what: str, key: Mapping[str, object]) -> str:
        return Store.key(what=f"table {what}", **key, **self._identity)

    def _remember(self, name: str, table: Mapping[str, Any]) -> None:
        self._known[name] = table
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
