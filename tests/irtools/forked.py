"""Jobs of `irtools.measure.sandbox` as forks of one process, which has imported what they import.

In use every job is started from scratch: a process with a runtime's threads must not be forked.
Here a process that never runs a model, and so has no threads, is forked for each job. A job has a
process of its own as ever; what it saves is a third of a second of imports, a few thousand times.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

_USED = (
    "irtools.backends.exact_products",
    "irtools.backends.onnxruntime.artifact",
    "irtools.backends.onnxruntime.profiling",
    "irtools.backends.onnxruntime.runner",
    "irtools.backends.onnxruntime.target",
    "irtools.measure.jobs",
    "irtools.measure.trial",
    "irtools.measure.wire",
    "irtools.measure.worker",
)
"""No plug-in is looked up: which there are depends on the test."""

_CODE = struct.Struct("i")


class Fork:
    """A forked process, as `subprocess.Popen` would show it."""

    def __init__(self, pid: int, stdin: int, ended: int) -> None:
        self.pid = pid
        self.stdin = os.fdopen(stdin, "wb")
        self._ended = os.fdopen(ended, "rb")
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None and select.select([self._ended], [], [], 0)[0]:
            self.wait()
        return self._code

    def wait(self) -> int:
        if self._code is None:
            (self._code,) = _CODE.unpack(self._ended.read(_CODE.size))
            self._ended.close()
        return self._code


class Server:
    """The process that is forked; it starts with the first job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(self, target: str | None = None) -> Any:
        """Stand for `Child.start`."""
        from irtools.measure.child import Child

        printed = tempfile.TemporaryFile()  # noqa: SIM115 - it is the child's, and outlives this
        answer, answer_end = os.pipe()
        job_end, job = os.pipe()
        ended, ended_end = os.pipe()
        with self._lock:
            pid = self._fork((job_end, answer_end, printed.fileno(), ended_end))
        for end in (job_end, answer_end, ended_end):
            os.close(end)
        child = Child(Fork(pid, job, ended), answer, printed)  # type: ignore[arg-type]
        child.send({"path": sys.path})
        return child

    def _fork(self, files: tuple[int, ...]) -> int:
        if self._socket is None:
            self._socket, theirs = socket.socketpair()
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__)), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Numpy's library starts threads of its own when it is imported.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
            theirs.close()
        place = pickle.dumps((dict(os.environ), str(Path.cwd())))
        socket.send_fds(self._socket, [_CODE.pack(len(place))], list(files))
        self._socket.sendall(place)
        return int(_CODE.unpack(_exactly(self._socket, _CODE.size))[0])

    def close(self) -> None:
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.wait()


def _exactly(stream: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = stream.recv(size - len(found))
        if not part:
            raise EOFError("the process that is forked has ended")
        found += part
    return found


def _serve(stream: socket.socket) -> None:
    running: dict[int, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready = select.select([stream, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _report(running)
        if stream not in ready:
            continue
        head, files, _, _ = socket.recv_fds(stream, _CODE.size, 4)
        if not head:
            return
        environment, folder = pickle.loads(_exactly(stream, _CODE.unpack(head)[0]))
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (stream.fileno(), woken, wake, *running.values()):
                os.close(inherited)
            _work(files, environment, folder)
        # A group of its own before it can be killed as one.
        os.setpgid(pid, pid)
        *others, ended = files
        for file in others:
            os.close(file)
        running[pid] = ended
        stream.sendall(_CODE.pack(pid))


def _report(running: dict[int, int]) -> None:
    """Tell the codes of those that have ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            ended = running.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(ended, _CODE.pack(os.waitstatus_to_exitcode(status)))
            os.close(ended)


def _work(files: list[int], environment: dict[str, str], folder: str) -> None:
    """Be the child of a job."""
    from irtools.measure import worker

    try:
        job, answer, printed, ended = files
        os.close(ended)
        for file, number in ((job, 0), (printed, 1), (printed, 2)):
            os.dup2(file, number)
        os.close(job)
        os.close(printed)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.stdin = open(0)  # noqa: SIM115
        sys.argv[1:] = [str(answer)]
        worker.main()
    finally:
        os._exit(1)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in _USED:
        importlib.import_module(name)
    # What was looked up in passing is looked up again by each job.
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "forking needs a single thread"
    with socket.socket(fileno=int(sys.argv[1])) as stream:
        _serve(stream)


if __name__ == "__main__":
    main()
