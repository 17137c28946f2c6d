"""What a verb says of memory and disk before it works on a large model."""

from __future__ import annotations

from pathlib import Path

__all__ = ["say_needs"]


def say_needs(
    source: str, out: Path, *, exports: bool, optimizes: bool = False, compares: bool = False
) -> None:
    """Print what work on a large source takes, and where memory may be short.

    Args: as `irtools.measure.needs.needs_of`.

    Raises:
        FileError: There is no room on a disk.
    """
    from irtools.cli.console import say
    from irtools.measure.needs import available_memory, needs_of, refuse_full_disks
    from irtools.words import size_text

    needs = needs_of(source, out, exports=exports, optimizes=optimizes, compares=compares)
    if needs is None:
        return
    refuse_full_disks(needs)
    say(f"irc: needs about {needs}")
    available = available_memory()
    if available is not None and available < needs.memory:
        say(
            f"irc: warning: {size_text(available)} of memory are available: the system may stop "
            "this, or become slow"
        )
