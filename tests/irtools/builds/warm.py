"""Runs `irc build` in forks of a process that has imported what builds import.

A script: reads a line of JSON with `folder`, `count` of builds at the same time, seconds `after`
which they are killed, and the `limit` of a file's bytes; answers with a line. A build starts its
jobs as forks as well; everything else is as `irc` does it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

_USED = (
    "onnx",
    "irtools.backends.onnxruntime.runner",
    "irtools.backends.onnxruntime.artifact",
    "irtools.builds.build",
    "irtools.builds.make",
    "irtools.builds.summary",
    "irtools.cli.console",
    "irtools.cli.verbs.build",
    "irtools.frontends.onnx_file",
    "irtools.measure.jobs",
    "irtools.measure.trial",
    "irtools.measure.wire",
    "irtools.passes.cleanup.cleanup",
    "irtools.passes.quantization.int8",
)


class _Fork:
    """A forked process, as `subprocess.Popen` would show it."""

    def __init__(self, pid: int, stdin: int | None = None) -> None:
        self.pid = pid
        self.stdin = None if stdin is None else os.fdopen(stdin, "wb")
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end; after a timeout return None."""
        if timeout is not None:
            handle = os.pidfd_open(self.pid)
            select.select([handle], [], [], timeout)
            os.close(handle)
            return self.poll()
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code


def _start_job(target: str | None = None) -> Any:
    """Stand for `Child.start`: a fork of this process, which has no threads, waits for its job."""
    from irtools.measure import worker
    from irtools.measure.child import Child

    printed = tempfile.TemporaryFile()  # noqa: SIM115 - it is the child's, and outlives this
    answer, answer_end = os.pipe()
    job, job_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(job_end)
        os.close(answer)
        for number, to in ((job, 0), (printed.fileno(), 1), (printed.fileno(), 2)):
            os.dup2(number, to)
        sys.stdin = open(0)  # noqa: SIM115
        sys.argv[1:] = [str(answer_end)]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        worker.main()
        os._exit(0)
    os.setpgid(pid, pid)  # Before it can be killed as a group.
    os.close(job)
    os.close(answer_end)
    child = Child(_Fork(pid, job_end), answer, printed)  # type: ignore[arg-type]
    child.send({"path": sys.path})
    return child


def _build(asked: dict[str, Any], errors: int) -> NoReturn:
    """Be `irc build` in a folder, with a cache of its own."""
    from irtools.cli.main import run
    from irtools.measure.child import Child

    code = 70
    with contextlib.suppress(BaseException):
        os.dup2(errors, 2)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.chdir(asked["folder"])
        os.environ["XDG_CACHE_HOME"] = f"{asked['folder']}/cache"
        if asked["limit"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["limit"],) * 2)
        Child.start = _start_job  # type: ignore[method-assign,assignment]
        code = run(["build"])
        sys.stderr.flush()
    os._exit(code)


def _answer(asked: dict[str, Any]) -> list[tuple[int | None, str]]:
    """Run builds at the same time; return exit code and stderr of each."""
    running = []
    for _ in range(asked["count"]):
        file = tempfile.TemporaryFile()  # noqa: SIM115
        pid = os.fork()
        if pid == 0:
            _build(asked, file.fileno())
        running.append((_Fork(pid), file))
    found = []
    for process, file in running:
        if asked["after"] is not None and process.wait(asked["after"]) is None:
            os.kill(process.pid, signal.SIGKILL)
        code = process.wait()
        file.seek(0)
        found.append((code, file.read().decode()))
        file.close()
    return found


def main() -> None:
    for name in _USED:
        importlib.import_module(name)
    from irtools.builds.fingerprints import Fingerprints
    from irtools.measure.machine import code_digest

    code_digest()  # Kept for a process, as are the versions.
    Fingerprints()._all_versions()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "forking needs a single thread"
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
