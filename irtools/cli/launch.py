"""Running a command again in the processes that a file of accelerate describes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from irtools.errors import FileError, MissingExtraError, UsageError
from irtools.files import scratch_folder

__all__ = ["launched", "launched_precision", "note_code"]

_PRECISION = "ACCELERATE_MIXED_PRECISION"
_CODE_FILE = "IRTOOLS_CODE_FILE"
_PATIENCE = 10.0


def launched(given: Mapping[str, Any]) -> int | None:
    """Run this very command again under `accelerate launch`, where a config file asks for it.

    Returns:
        The exit code, or None where nothing was launched.

    Raises:
        FileError: There is no such file.
        UsageError: It is not a config of accelerate, or starts nothing here.
        MissingExtraError: accelerate is not installed, or DeepSpeed where the file wants it.
    """
    file = given["accelerate_config"]
    if file is None or _PRECISION in os.environ:
        return None
    if not Path(file).is_file():
        raise FileError(f"there is no accelerate config {file}; `accelerate config` makes one")
    if find_spec("accelerate") is None:
        raise MissingExtraError("--accelerate-config", "torch")
    config = _checked_config(file)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
    command += ["--config_file", str(file), *_free_port(config)]
    command += ["-m", "irtools.cli.main", *sys.argv[1:]]
    with scratch_folder("launch") as folder:
        # A launcher has codes of its own for what it launched.
        note = folder / "code"
        if _run(command, {**os.environ, _CODE_FILE: str(note)}) == 0:
            return 0
        if not note.exists():
            raise UsageError(f"accelerate failed with {file}")
        return int(note.read_text())


def launched_precision() -> Literal["fp32", "bf16", "fp16"]:
    """Return the arithmetic that the config asks for which this process was launched with.

    Raises:
        UsageError: It is none that a training here can have.
    """
    match os.environ.get(_PRECISION, "no"):
        case "no":
            return "fp32"
        case "bf16" | "fp16" as known:
            return known
        case other:
            raise UsageError(f"the accelerate config asks for {other}; expected no, bf16 or fp16")


def note_code(code: int) -> None:
    """Report the exit code to the process that had this one launched; the first one counts."""
    place = os.environ.get(_CODE_FILE)
    if place and code:
        with suppress(OSError), Path(place).open("x") as note:
            note.write(str(code))


def _free_port(config: Any) -> tuple[str, ...]:
    """Return options that have trainings on one machine meet at ports of their own.

    DeepSpeed names shared memory by the port, and one that was killed does not remove it:
    the next one on the same port would wait for processes that are gone.
    """
    alone = (config.num_machines or 1) == 1 and config.main_process_port is None
    return ("--main_process_port", "0") if alone else ()


def _checked_config(file: str) -> Any:
    import yaml  # type: ignore[import-untyped]
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        config = load_config_from_file(file)
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{file} is not a config of accelerate: {reason}") from error
    wanted = str(getattr(config.distributed_type, "value", config.distributed_type))
    if wanted == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise MissingExtraError(f"DeepSpeed, which {file} asks for,", "zero")
    return config


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    # A group of its own: launchers leave their children running when they are stopped.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait()
    finally:
        _end(process)


def _end(leader: subprocess.Popen[bytes]) -> None:
    """Stop what is left of a group of processes, and wait for it."""
    deadline = time.monotonic() + _PATIENCE
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            leader.poll()
            os.killpg(leader.pid, 0)
            time.sleep(0.05)
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()
