"""Run benchmarks, prepare their models, and keep the tables of docs/ up to date.

python -m benchmarks list
python -m benchmarks prepare NAME...
python -m benchmarks run NAME [OPTION]...
python -m benchmarks tables [--check]
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from benchmarks.catalogue import BENCHMARKS
from benchmarks.pages import PAGES, refreshed, stale_pages


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the four commands; returns the exit code."""
    arguments = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    match arguments.command:
        case "list":
            for name, benchmark in BENCHMARKS.items():
                print(f"{name:22}{benchmark.summary}")
        case "prepare":
            _call("models", arguments.rest)
        case "run":
            benchmark = BENCHMARKS[arguments.name]
            _call(
                benchmark.module, [*benchmark.arguments, *arguments.rest], f"run {arguments.name}"
            )
        case "tables":
            return _tables(check=arguments.check)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name every benchmark")
    prepare = commands.add_parser("prepare", help="make models and data", add_help=False)
    prepare.add_argument("rest", nargs=argparse.REMAINDER)
    run = commands.add_parser("run", help="run one; `run NAME --help` has its options")
    run.add_argument("name", choices=list(BENCHMARKS), metavar="NAME")
    run.add_argument("rest", nargs=argparse.REMAINDER, metavar="OPTION")
    tables = commands.add_parser("tables", help="make the tables of docs/ of docs/results/")
    tables.add_argument("--check", action="store_true", help="write nothing; exit 1 if one is old")
    return parser


def _call(module: str, argv: Sequence[str], title: str = "prepare") -> None:
    sys.argv[0] = f"benchmarks {title}"  # What argparse calls the program.
    importlib.import_module(f"benchmarks.{module}").main(argv)


def _tables(*, check: bool) -> int:
    if check:
        for path in stale_pages():
            print(f"{path} is not what docs/results/ says: python -m benchmarks tables")
        return 1 if stale_pages() else 0
    for path in PAGES:
        path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
