"""Watching the memory of a command and of all processes that it starts, from outside.

Linux only: reads /proc. Peaks of single processes are the kernel's own (`VmHWM`) and miss nothing
that happened before the last look; sums over processes are of looks 50 ms apart.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_INTERVAL = 0.05


@dataclass
class Usage:
    """What a command needed.

    Attributes:
        seconds: Wall time.
        peak: Peak resident memory of the command's own process, mapped files included, bytes.
        anonymous: Peak of what is not backed by a file.
        child: Largest peak of one of its child processes; 0 without children.
        together: Largest sum over all processes at one moment. A file that two of them map
            counts twice.
    """

    seconds: float = 0.0
    peak: int = 0
    anonymous: int = 0
    child: int = 0
    together: int = 0


def watch(command: Sequence[str], log: Path) -> Usage:
    """Run a command to its end; its output goes to `log`.

    Raises:
        RuntimeError: It failed; shows the end of its output.
    """
    found, started = Usage(), time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            _look(process.pid, found)
            time.sleep(_INTERVAL)
    found.seconds = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    return found


def _look(root: int, found: Usage) -> None:
    own = _status(root)
    children = [_status(pid) for pid in _descendants(root)]
    found.peak = max(found.peak, own.get("VmHWM", 0))
    found.anonymous = max(found.anonymous, own.get("RssAnon", 0))
    found.child = max([found.child, *(status.get("VmHWM", 0) for status in children)])
    together = sum(status.get("VmRSS", 0) for status in (own, *children))
    found.together = max(found.together, together)


def _status(pid: int) -> Mapping[str, int]:
    """Return the sizes that the kernel reports of a process, in bytes; nothing if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {name: 1024 * int(size.split()[0]) for name, size in pairs}


def _descendants(root: int) -> Iterator[int]:
    parents = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # The name of a program, in brackets, may hold anything.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
    pending = [root]
    while pending:
        parent = pending.pop()
        children = [pid for pid, of in parents.items() if of == parent]
        pending += children
        yield from children
