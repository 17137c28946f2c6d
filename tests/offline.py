"""Run a Python module or file in a process that may not touch the network; record attempts.

python offline.py LOG MODULE|FILE.py [ARGUMENT...]

Two nets, both inherited by whatever the process starts. An audit hook sees connections and name
look-ups of Python code. A filter of the kernel ends a process that asks for an internet socket at
all, native code included (x86-64 and Arm Linux).
"""

from __future__ import annotations

import ctypes
import os
import platform
import runpy
import struct
import sys
from pathlib import Path

HOOK = """
import os, sys
_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
def _refuse(event, arguments):
    # The address of a socket within the machine is a path.
    within = event == "socket.connect" and isinstance(arguments[1], (str, bytes))
    if event in _EVENTS and not within:
        with open(os.environ["OFFLINE_LOG"], "a") as log:
            log.write(f"{event} {arguments}\\n")
        raise OSError("the network is cut off")
sys.addaudithook(_refuse)
"""
_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_INTERNET = (2, 10)  # AF_INET, AF_INET6
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


def main() -> None:
    """Cut the network off, then run the module as `python -m` does."""
    log, module, *arguments = sys.argv[1:]
    sys.path.pop(0)  # The folder of this file.
    folder = Path(log).parent / "hook"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    os.environ["OFFLINE_LOG"] = log
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    exec(HOOK, {})
    forbid_sockets()
    sys.argv = [module, *arguments]
    if module.endswith(".py"):
        runpy.run_path(module, run_name="__main__")
        return
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def forbid_sockets() -> None:
    """Let the kernel end this process, and its children, when they open an internet socket."""
    architecture, number = _SOCKET[platform.machine()]
    program = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_IF_EQUAL, 0, 5, architecture),
        (_LOAD, 0, 0, 0),  # the number of the system call
        (_IF_EQUAL, 0, 3, number),
        (_LOAD, 0, 0, 16),  # its first argument, the family
        (_IF_EQUAL, 2, 0, _INTERNET[0]),
        (_IF_EQUAL, 1, 0, _INTERNET[1]),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    packed = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if libc.prctl(_SECCOMP, _FILTER, ctypes.create_string_buffer(packed, len(packed)), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    main()
