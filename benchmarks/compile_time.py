"""How long `cleanup,fuse` takes compared with onnxsim and onnxslim: wall time of processes.

    python -m venv build/peers && build/peers/bin/pip install onnxsim onnxslim
    python -m benchmarks run compile-time [NAME...] --tools build/peers/bin [--write [NAME]]

Each tool reads the same file and writes a file of its own, started as a user starts it: `irc
optimize M --passes cleanup,fuse --no-bench --no-cache`, `onnxsim M OUT`, `onnxslim M OUT`. One
process runs at a time; after a round that is not counted (files and byte code get into the cache)
the tools take turns, in another order in each round. Ratios are taken within a round. Results are
compared with the original on ONNX Runtime with its optimizations off. Checkpoints are exported by
`irc export`; `NAME-ts` comes from TorchScript's exporter, `speech` is drawn: 3,600 nodes, 90 MB.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from benchmarks.exported import exported
from benchmarks.prepared.packages import cached
from benchmarks.prepared.speech import write_speech
from benchmarks.processes import alternate, empty, ratio
from benchmarks.recording import (
    DEFAULT_CACHE,
    about,
    add_names,
    add_write_option,
    prepare,
    store,
)
from irtools.data import SyntheticSettings, synthesize
from irtools.errors import IrtoolsError
from irtools.metrics import fidelity
from irtools.model import Model
from irtools.targets import RunnerOptions, find_target

OURS = "irtools"
PEERS = ("onnxsim", "onnxslim")

Command = Callable[[Path, Path], Sequence[str]]


@dataclass(frozen=True)
class Result:
    """What one tool made of one model.

    Attributes:
        seconds: Wall time of every counted round; empty where it failed.
        bytes: Size of what it wrote, with weights in a file of their own.
        sqnr_db: Signal-to-noise ratio against the original; None where outputs are equal.
        failure: Last line of what it said, where it failed.
    """

    model: str
    tool: str
    seconds: tuple[float, ...] = ()
    nodes: int = 0
    bytes: int = 0
    sqnr_db: float | None = None
    failure: str = ""


def main(argv: Sequence[str]) -> None:
    """Measure the models that are named and print their table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_names(parser, MODELS)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    parser.add_argument("--tools", type=Path, help="folder with the peers' commands")
    parser.add_argument("--rounds", type=int, default=5)
    add_write_option(parser, "compile-time")
    arguments = parser.parse_args(argv)
    where = find_tools(arguments.tools)
    tools = commands(where)
    found = []
    for name in arguments.names:
        path = MODELS[name](arguments.cache.resolve())
        found += measured(name, path, tools, arguments.rounds)
        print("\n".join(table(found)), flush=True)
    store(arguments.write, document(found, where, arguments.rounds))


def prepared(file: str, cache: Path) -> Path:
    """Return a file that `benchmarks prepare` exports itself."""
    name = file.removesuffix("-ts")
    prepare(name, cache)
    return cache / name / f"{file}.onnx"


def speech(cache: Path) -> Path:
    return Path(cached(cache / "speech" / "speech.onnx", write_speech))


MODELS: Mapping[str, Callable[[Path], Path]] = {
    "minilm": lambda cache: exported("minilm", cache),
    "bert-base": lambda cache: prepared("bert-base", cache),
    "bert-base-ts": lambda cache: prepared("bert-base-ts", cache),
    "dinov2-small": lambda cache: exported("dinov2-small", cache),
    "smollm2": lambda cache: exported("smollm2", cache),
    "efficientnet-lite0": lambda cache: prepared("efficientnet-lite0", cache),
    "efficientnet-lite0-ts": lambda cache: prepared("efficientnet-lite0-ts", cache),
    "speech": speech,
}


def find_tools(folder: Path | None) -> Mapping[str, str]:
    """Return where the command of each tool is.

    Raises:
        SystemExit: One is not installed.
    """
    places = [Path(sys.executable).parent, *([folder.absolute()] if folder else [])]
    path = os.pathsep.join([*map(str, places), os.environ.get("PATH", "")])
    found = {name: shutil.which(name, path=path) for name in ("irc", *PEERS)}
    missing = [name for name, command in found.items() if command is None]
    if missing:
        sys.exit(
            f"compile_time: {', '.join(missing)} not found: pip install {' '.join(missing)} into "
            "an environment of its own, and name its bin folder with --tools"
        )
    return {name: command for name, command in found.items() if command is not None}


def commands(where: Mapping[str, str]) -> Mapping[str, Command]:
    """Return the command line of each tool, by name."""
    passes = ["--passes", "cleanup,fuse", "--no-bench", "--no-cache", "-o"]
    return {
        OURS: lambda source, out: [where["irc"], "optimize", str(source), *passes, str(out)],
        **{peer: _two_paths(where[peer]) for peer in PEERS},
    }


def _two_paths(command: str) -> Command:
    return lambda source, out: [command, str(source), str(out)]


def measured(
    name: str, source: Path, tools: Mapping[str, Command], rounds: int
) -> Iterator[Result]:
    """Yield one result per tool, the original first."""
    yield Result(name, "original", (), *counted(source))
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        outputs = {tool: Path(folder, tool, "result.onnx") for tool in tools}
        lines = {tool: command(source, outputs[tool]) for tool, command in tools.items()}
        times = alternate(lines, rounds, lambda tool: empty(outputs[tool].parent))
        for tool, path in outputs.items():
            if times[tool].failure:
                yield Result(name, tool, failure=times[tool].failure)
            else:
                closeness = compare(source, path)
                yield Result(name, tool, times[tool].seconds, *counted(path), closeness)


def counted(path: Path) -> tuple[int, int]:
    """Return the nodes of a model, those of its bodies too, and its bytes on disk."""
    size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    return nodes_of(onnx.load(path, load_external_data=False).graph), size


def nodes_of(graph: onnx.GraphProto) -> int:
    bodies = (a.g for node in graph.node for a in node.attribute if a.HasField("g"))
    return len(graph.node) + sum(nodes_of(body) for body in bodies)


def compare(source: Path, result: Path) -> float | None:
    """Return the SQNR in dB of a result against its source, on inputs drawn for the source.

    Raises:
        SystemExit: The result does not run.
    """
    feeds = next(iter(synthesize(Model.load(source), SyntheticSettings(samples=2)).batches(2)))
    target, outputs = find_target("ort-cpu"), []
    try:
        for path in (source, result):
            with target.runner(Model.load(path), RunnerOptions(exact=True)) as runner:
                outputs.append(runner.run(feeds))
    except IrtoolsError as error:
        sys.exit(f"compile_time: {result.parent.name} on {source.name}: {error}")
    first, second = outputs
    found = fidelity(first, second).sqnr_db
    return None if math.isinf(found) else found


def table(results: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    yield "| model | tool | s | of irtools' time | nodes | MB | SQNR dB |"
    yield "| --- " * 7 + "|"
    ours = {one.model: one.seconds for one in results if one.tool == OURS}
    for one in results:
        if one.failure:
            yield f"| {one.model} | {one.tool} | fails: {one.failure} | | | | |"
            continue
        cells = [one.model, one.tool, "", "", f"{one.nodes:,}", f"{one.bytes / 1e6:.1f}", ""]
        if one.seconds:
            cells[2] = f"{median(one.seconds):.1f}"
            cells[3] = ratio(one.seconds, ours.get(one.model, ()))
            cells[6] = "exact" if one.sqnr_db is None else f"{one.sqnr_db:.0f}"
        yield f"| {' | '.join(cells)} |"


def document(results: Sequence[Result], where: Mapping[str, str], rounds: int) -> dict[str, Any]:
    """Return everything that a reader needs to judge the table."""
    head = about("compile-time")
    peers = {peer: version_of(peer, where[peer]) for peer in PEERS}
    return {
        **head,
        "versions": head["versions"] | peers,
        "rounds": rounds,
        "results": [dataclasses.asdict(one) for one in results],
    }


def version_of(package: str, command: str) -> str:
    """Return the version of a package as the Python next to its command knows it."""
    program = f"from importlib.metadata import version; print(version({package!r}))"
    python = Path(command).with_name("python")
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


VIEWS = {"table": lambda found: table([Result(**one) for one in found["results"]])}
