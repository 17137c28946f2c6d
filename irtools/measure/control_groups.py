"""Where Linux keeps the limits of the control groups that this process is in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["MEMBERSHIP", "ROOT", "Group", "groups", "read"]

ROOT = Path("/sys/fs/cgroup")
"""Where control groups are mounted."""

MEMBERSHIP = Path("/proc/self/cgroup")
"""Names this process's groups."""

Group = tuple[int, Path]
"""Version of the hierarchy, 1 or 2, and the folder of a group."""


def groups(controller: str, root: Path, membership: Path) -> Iterator[Group]:
    """Yield this process's groups for a controller, `cpu` or `memory`, and those around them."""
    for line in read(membership).splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            yield from ((2, folder) for folder in _chain(root, group))
        elif controller in controllers.split(","):
            for mounted in dict.fromkeys((root / controllers, root / controller)):
                yield from ((1, folder) for folder in _chain(mounted, group))


def _chain(root: Path, group: str) -> Iterator[Path]:
    # Inside a container the group's own path is often not mounted, its root is.
    path = root / group.strip("/")
    while path != root:
        yield path
        path = path.parent
    yield root


def read(path: Path) -> str:
    """Return what a file says; empty where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
