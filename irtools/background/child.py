"""The process of a background job. Run by path, never imported by the parent.

    python -P child.py PARENT ARGS...

Runs `irc ARGS` and ends when its parent does, also where that is killed.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # It ended before this process had asked to be told.
    sys.argv[:] = ["irc", *sys.argv[2:]]
    runpy.run_module("irtools.cli.main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
