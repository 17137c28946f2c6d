from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.errors import DataError, LimitError, MissingExtraError, PassError, UnsupportedError
from irtools.measure.sandbox import ChildLimits, children_ahead, run_isolated


def test_the_answer_comes_back() -> None:
    assert run_isolated(divmod, 7, 3) == [2, 1]


def test_the_child_is_another_process() -> None:
    assert run_isolated(os.getpid) != os.getpid()


def test_a_crash_is_one_clear_error() -> None:
    with pytest.raises(UnsupportedError, match=r"^loading x.onnx crashed with SIGABRT"):
        run_isolated(os.abort, label="loading x.onnx")


def test_an_exit_is_one_clear_error() -> None:
    with pytest.raises(UnsupportedError, match="ended with code 3"):
        run_isolated(os._exit, 3)


def test_a_hang_ends_at_the_limit() -> None:
    start = time.monotonic()
    with pytest.raises(LimitError, match=r"the job took longer than the limit of 0\.5 s"):
        run_isolated(time.sleep, 60, limits=ChildLimits(seconds=0.5))
    assert time.monotonic() - start < 10


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel holds memory limits on Linux only")
def test_memory_ends_at_the_limit() -> None:
    with pytest.raises(LimitError, match="more memory than the limit of 1024 MB"):
        run_isolated(bytearray, 8 * 2**30, limits=ChildLimits(memory=2**30))


def test_errors_keep_their_class_and_words() -> None:
    with pytest.raises(DataError, match=r"^bad data$"):
        run_isolated(exec, "from irtools.errors import *; raise DataError('bad data')")
    with pytest.raises(MissingExtraError, match=r"^a target needs .*irtools-compiler\[x\]'$"):
        run_isolated(exec, "from irtools.errors import *; raise MissingExtraError('a target', 'x')")


def test_unforeseen_failures_are_named() -> None:
    with pytest.raises(PassError, match="the job failed: ZeroDivisionError"):
        run_isolated(divmod, 1, 0)


def test_what_the_job_prints_stays_out(capfd: pytest.CaptureFixture[str]) -> None:
    run_isolated(os.system, "echo loud; echo loud >&2")
    assert capfd.readouterr() == ("", "")


def test_the_last_words_of_a_crash_are_told() -> None:
    script = "import os; os.system('echo first; echo broken node >&2'); os.abort()"
    with pytest.raises(UnsupportedError, match=r"SIGABRT; it last said: broken node$"):
        run_isolated(exec, script)


def test_control_codes_are_shown_as_numbers() -> None:
    with pytest.raises(PassError, match=r"ValueError: \\x1b\[31mred"):
        run_isolated(exec, "raise ValueError('\\x1b[31mred')")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_its_parent(tmp_path: Path, ending: signal.Signals) -> None:
    note = tmp_path / "pid"
    child = f"import os,time; open({str(note)!r},'w').write(str(os.getpid())); time.sleep(60)"
    script = f"from irtools.measure.sandbox import run_isolated; run_isolated(exec, {child!r})"
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    _await(lambda: note.exists() and note.read_text() != "")
    parent.send_signal(ending)
    parent.wait(10)
    pid = int(note.read_text())
    _await(lambda: not _is_alive(pid))


def _await(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def _children() -> set[int]:
    me = os.getpid()
    return {int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_child_that_was_started_ahead_does_one_job_and_does_not_outlive_the_block() -> None:
    before = _children()
    with children_ahead("ort-cpu"):
        (spare,) = _children() - before
        assert run_isolated(os.getpid) == spare
        (following,) = _children() - before
        assert following != spare
        with children_ahead("ort-cpu"):  # Within another, for a caller that has one already.
            assert run_isolated(os.getpid) == following
        assert _children() - before
    assert not _children() - before


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_spare_child_that_was_killed_is_replaced() -> None:
    before = _children()
    with children_ahead("no-such-target"):
        (spare,) = _children() - before
        os.kill(spare, signal.SIGKILL)
        while Path(f"/proc/{spare}/stat").read_text().split()[2] != "Z":
            pass
        assert run_isolated(divmod, 7, 3) == [2, 1]
