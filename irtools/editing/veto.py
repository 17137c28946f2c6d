"""The answer "no" of a rule, with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from irtools.words import counted

__all__ = ["Veto", "require", "told"]


class Veto(Exception):  # noqa: N818 - not an error: the answer "no", with its reason
    """A candidate that is left as it is.

    The sentence is made when it is asked for: of the thousands of candidates of a large model a
    report names a few.

    Args:
        reason: Why, as the end of the sentence "did not fuse X: "; `{}` stands for a detail.
        details: Values to insert. A tuple is shown as a shape, `[N, 12, 64]`, a list without
            brackets.
        named: True where the candidate is what the rule looks for and only a condition fails, so
            that the report should mention it.
    """

    def __init__(self, reason: str, *details: object, named: bool = True) -> None:
        super().__init__(reason)
        self.named = named
        self._reason = reason
        self._details = details

    @property
    def reason(self) -> str:
        """The sentence."""
        if not self._details:
            return self._reason
        return self._reason.format(*map(_shown, self._details))

    @property
    def kind(self) -> str:
        """The sentence without its shapes, whose open sizes differ from block to block."""
        if not self._details:
            return self._reason
        details = ("" if isinstance(d, tuple) else _shown(d) for d in self._details)
        return self._reason.format(*details)

    def __str__(self) -> str:
        return self.reason


def require(condition: object, reason: str, *details: object, named: bool = True) -> None:
    """Raise a Veto unless the condition holds."""
    if not condition:
        raise Veto(reason, *details, named=named)


def told(what: str, vetoes: Iterable[tuple[str, Veto]]) -> Iterator[str]:
    """Yield a sentence for each kind of reason, with the first place that it holds for.

    Args:
        what: The beginning of the sentence: `did not fuse gelu`.
        vetoes: Place and reason.
    """
    places: dict[str, list[tuple[str, Veto]]] = {}
    for place, veto in vetoes:
        places.setdefault(veto.kind, []).append((place, veto))
    for (first, veto), *others in places.values():
        more = f" and {counted(len(others), 'more place')}" if others else ""
        yield f"{what} at {first}{more}: {veto.reason}"


def _shown(detail: object) -> object:
    if not isinstance(detail, tuple | list):
        return detail
    joined = ", ".join(map(str, detail))
    return f"[{joined}]" if isinstance(detail, tuple) else joined
