"""Times the models of a kit against each other: `python kit.zip -o result.json`.

It needs numpy and onnxruntime alone, and Python 3.8 or newer: it is packed into the kit as it is,
and imports nothing of irtools. As irtools itself does, it gives every block of runs a process of
its own, one alive at a time, and lets the models take turns that change from round to round.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

_MIN_ROUNDS = 3
_MIN_RUNS = 3
_WARM_UP_SHARE = 0.4


def main() -> None:
    """Run the kit that this file is in; or one block, for a process that this one started."""
    if sys.argv[1:2] == ["--block"]:
        print(json.dumps(_block(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description="Time the models of this kit.")
    parser.add_argument("-o", "--output", default="result.json", help="the result; - is stdout")
    parser.add_argument("--threads", type=int, help="of every model; default: as packed, else all")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="irtools-kit-") as folder:
        try:
            kit = _unpack(Path(sys.argv[0]), Path(folder))
            found = _measure(kit, Path(folder), given.threads)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            sys.exit(f"kit: {error}")
    text = json.dumps(found, indent=1) + "\n"
    if given.output == "-":
        sys.stdout.write(text)
    else:
        Path(given.output).write_text(text, encoding="utf-8")
        print(f"kit: wrote {given.output}", file=sys.stderr)


def _unpack(archive: Path, folder: Path) -> dict[str, Any]:
    """Unpack the kit and return what `kit.json` says; every file is what was packed."""
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive} is damaged: {error}; copy it again") from error
    kit: dict[str, Any] = json.loads((folder / "kit.json").read_text(encoding="utf-8"))
    for name, wanted in kit["files"].items():
        if _sha256(folder / name) != wanted:
            raise ValueError(f"{name} is not what was packed; copy the kit again")
    return kit


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for part in iter(lambda: stream.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def _measure(kit: dict[str, Any], folder: Path, threads: int | None) -> dict[str, Any]:
    models, settings = kit["models"], kit["settings"]
    threads = threads or settings["threads"] or _cores()
    answers: list[list[dict[str, Any]]] = [[] for _ in models]
    deadline = time.monotonic() + settings["max_seconds"]
    for number in range(settings["rounds"]):
        if number >= _MIN_ROUNDS and time.monotonic() > deadline:
            break
        print(f"kit: round {number + 1} of {settings['rounds']}", file=sys.stderr)
        for model in _rotated(len(models), number):
            answers[model].append(_run_block(folder, model, threads))
    return {
        "format": "irtools-kit-result",
        "version": 1,
        "kit": kit["kit"],
        "machine": _machine(threads),
        "versions": _versions(),
        "models": [{key: one[key] for key in _OF_MODEL} for one in models],
        "results": [
            _result(shape, model["name"], [block["shapes"][place] for block in blocks], blocks)
            for place, shape in enumerate(kit["shapes"])
            for model, blocks in zip(models, answers)  # noqa: B905 - strict= is of Python 3.10
        ],
    }


_OF_MODEL = ("name", "target", "sha256", "files")


def _rotated(count: int, number: int) -> list[int]:
    """Return the models, another one first in each round, every second round backwards."""
    start = number % count
    turned = [*range(start, count), *range(start)]
    return turned if number % 2 == 0 else turned[::-1]


def _run_block(folder: Path, model: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, str(folder / "__main__.py"), "--block", str(folder)]
    found = subprocess.run([*command, str(model), str(threads)], capture_output=True)
    if found.returncode != 0:
        said = found.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(said[-1] if said else f"a process ended with {found.returncode}")
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


def _result(
    shape: dict[str, Any], name: str, timed: list[dict[str, Any]], blocks: list[dict[str, Any]]
) -> dict[str, Any]:
    import numpy as np

    runs = np.concatenate([np.array(one["runs"]) for one in timed])
    return {
        "name": name,
        "shape": shape["label"],
        "medians": [one["median"] for one in timed],
        "p90": float(np.percentile(runs, 90)),
        "p99": float(np.percentile(runs, 99)),
        "mean": float(runs.mean()),
        "runs": len(runs),
        "peak_bytes": max(block["peak_bytes"] for block in blocks),
        "load_seconds": float(np.median([block["load_seconds"] for block in blocks])),
        "first_seconds": float(np.median([block["first_seconds"] for block in blocks])),
    }


def _block(folder: Path, model: int, threads: int) -> dict[str, Any]:
    """Load one model and time it at every shape."""
    # The Linux wheels report to a web service unless this is set before they are imported.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnxruntime as ort

    kit = json.loads((folder / "kit.json").read_text(encoding="utf-8"))
    one, settings = kit["models"][model], kit["settings"]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    # As `irtools` opens it: workers wait awake during a run, and steal from nothing after it.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    start = time.perf_counter()
    session = ort.InferenceSession(str(folder / one["path"]), options, providers=one["providers"])
    load = time.perf_counter() - start
    gc.disable()
    shapes, first = [], None
    for shape in kit["shapes"]:
        turns = []
        for name in shape["feeds"]:
            with np.load(folder / name, allow_pickle=False) as arrays:
                turns.append({key: arrays[key] for key in arrays.files})
        seconds = settings["block_seconds"]
        warm_up = _repeat(session, turns, _WARM_UP_SHARE * seconds, 1)
        first = warm_up[0] if first is None else first
        runs = np.array(_repeat(session, turns, seconds, _MIN_RUNS))
        each = [float(np.median(runs[place :: len(turns)])) for place in range(len(turns))]
        shapes.append({"median": float(np.mean(each)), "runs": runs.tolist()})
    return {
        "load_seconds": load,
        "first_seconds": first,
        "peak_bytes": _peak_memory(),
        "shapes": shapes,
    }


def _repeat(session: Any, turns: list[Any], seconds: float, least: int) -> list[float]:
    times: list[float] = []
    now = time.perf_counter()
    end = now + seconds
    while now < end or len(times) < max(least, len(turns)):
        session.run(None, turns[len(times) % len(turns)])
        after = time.perf_counter()
        times.append(after - now)
        now = after
    return times


def _peak_memory() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _machine(threads: int) -> dict[str, Any]:
    return {
        "name": platform.node() or "unnamed",
        "cpu": _cpu(),
        "cores": _cores(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "threads": threads,
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnxruntime as ort

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": ort.__version__,
    }


if __name__ == "__main__":
    main()
