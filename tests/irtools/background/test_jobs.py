"""Jobs run one after the other, report, and are cancelled; none outlives its parent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from irtools.background import JobRequest, Jobs, build_request, optimize_request, run_irc
from irtools.errors import FileError, LimitError, UnknownNameError, UsageError
from irtools.files import RootFolder

_ENDLESS = JobRequest("waits", ("report", "pipe.json"))
"""Reading a pipe that nothing writes to waits for ever, and costs nothing."""


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    os.mkfifo(tmp_path / "pipe.json")
    with Jobs(tmp_path) as found:
        yield found


def test_a_job_ends_with_what_it_printed(jobs: Jobs) -> None:
    job = jobs.start(JobRequest("lists", ("passes",)))
    assert job.wait(60) and job.state == "done"
    lines, end = job.lines()
    assert any(line.split()[0] == "int8" for line in lines) and end == len(lines)
    assert job.lines(end) == ([], end)
    assert job.to_dict()["code"] == 0


def test_a_job_that_fails_says_why(jobs: Jobs) -> None:
    job = jobs.start(JobRequest("fails", ("inspect", "missing.onnx")))
    assert job.wait(60) and job.state == "failed"
    assert job.to_dict()["code"] != 0 and "missing.onnx" in job.to_dict()["last"]


def test_cancelled_jobs_end_and_the_next_one_runs(jobs: Jobs) -> None:
    running, waiting = jobs.start(_ENDLESS), jobs.start(_ENDLESS)
    last = jobs.start(JobRequest("lists", ("targets", "--help")))
    assert waiting.cancel() and waiting.state == "cancelled" and waiting.ended
    assert running.cancel() and not running.cancel()
    assert last.wait(60) and last.state == "done"
    assert running.ended and running.state == "cancelled"
    assert [job.number for job in jobs.all()] == [3, 2, 1]


def test_jobs_have_numbers_and_a_bound(jobs: Jobs) -> None:
    with pytest.raises(UnknownNameError, match="no job 7"):
        jobs.find(7)
    for _ in range(50):
        jobs.start(_ENDLESS)
    with pytest.raises(LimitError, match="50 jobs are waiting"):
        jobs.start(_ENDLESS)


_PARENT = """
import os, sys
from pathlib import Path
from irtools.background import Jobs, JobRequest
jobs = Jobs(Path(sys.argv[1]))
job = jobs.start(JobRequest("waits", ("report", "pipe.json")))
while job.state == "waiting":
    pass
print(job._process.pid, flush=True)
job.wait()
"""


def test_a_job_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    command = [sys.executable, "-c", _PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        watch = os.pidfd_open(child)
        parent.send_signal(signal.SIGKILL)
    # A process file becomes readable when its process ends.
    assert select.select([watch], [], [], 30)[0]
    os.close(watch)


def test_run_irc_gives_output_and_the_last_line(tmp_path: Path) -> None:
    done = run_irc(["report", "--schema"], tmp_path)
    assert done.code == 0 and done.out.startswith("{")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(LimitError, match=r"took longer than 0\.2 s"):
        run_irc(["report", "pipe.json"], tmp_path, 0.2)


@pytest.fixture
def root(tmp_path: Path) -> RootFolder:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "model.onnx").touch()
    (inside / "data.npz").touch()
    (inside / "irc.toml").touch()
    (tmp_path / "outside.onnx").touch()
    (inside / "link.onnx").symlink_to(tmp_path / "outside.onnx")
    return RootFolder.of(inside)


def test_a_request_becomes_a_command(root: RootFolder) -> None:
    options = {"evaluate": "data.npz", "max-drop": "1%", "seq": ""}
    found = optimize_request(root, "model.onnx", "new/small.onnx", "cleanup,int8", options)
    assert found.args == (
        "optimize",
        str(root.path / "model.onnx"),
        "--output",
        str(root.path / "new/small.onnx"),
        "--passes",
        "cleanup,int8",
        f"--evaluate={root.path / 'data.npz'}",
        "--max-drop=1%",
        "--json",
        str(root.path / "new/small.report.json"),
    )
    wanted = {"objective": "size,loss"}
    tuned = optimize_request(root, "model.onnx", "best", "", wanted, verb="tune")
    assert tuned.args[-2:] == ("--objective=size", "--objective=loss")
    assert build_request(root, "irc.toml").args[0] == "build"


@pytest.mark.parametrize(
    ("source", "output", "options", "error"),
    [
        ("../outside.onnx", "a.onnx", {}, UsageError),
        ("link.onnx", "a.onnx", {}, UsageError),
        ("/etc/passwd", "a.onnx", {}, UsageError),
        ("missing.onnx", "a.onnx", {}, FileError),
        ("", "a.onnx", {}, UsageError),
        ("model\0.onnx", "a.onnx", {}, UsageError),
        ("model.onnx", "../a.onnx", {}, UsageError),
        ("model.onnx", ".hidden/a.onnx", {}, UsageError),
        ("model.onnx", ".", {}, UsageError),
        ("model.onnx", "a.onnx", {"evaluate": "../../secret.npz"}, UsageError),
        ("model.onnx", "a.onnx", {"dump-ir": "x"}, UsageError),
    ],
)
def test_requests_stay_in_the_folder(
    root: RootFolder, source: str, output: str, options: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        optimize_request(root, source, output, "", options)
