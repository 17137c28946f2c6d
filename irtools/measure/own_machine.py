"""Times hold for the machine that they were taken on, and for no other."""

from __future__ import annotations

from irtools.errors import UsageError
from irtools.targets import Isa, Target

__all__ = ["refuse_foreign", "why_not_timed"]


def why_not_timed(target: Target) -> str:
    """Say why times taken here would not be those of a target; '' where they are."""
    if target.runs_here:
        return ""
    return f"{target.name}:isa={target.isa.value} is not this CPU, which has {Isa.detect().value}"


def refuse_foreign(target: Target, what: str, remedy: str = "") -> None:
    """Refuse to time a target that stands for another machine.

    Args:
        target: What would be timed.
        what: What needs the times (`drop-slower`).
        remedy: What to do about it; empty: run it there, or leave out `isa=`.

    Raises:
        UsageError: It is another machine.
    """
    why = why_not_timed(target)
    if why:
        remedy = remedy or "run it on such a machine, or leave out isa="
        raise UsageError(f"{what} needs times, and {why}: {remedy}")
