"""Entry point of `irc`: verbs by name, exit codes, one clear line for every failure."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING

import click

from irtools.cli.advice import advice
from irtools.cli.launch import note_code
from irtools.errors import IrtoolsError
from irtools.lazy import defer_symbolic_algebra
from irtools.plugins import suggest
from irtools.version import __version__
from irtools.words import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["main", "run"]

VERBS: Mapping[str, str] = {
    "optimize": "Make a model smaller and faster, measured and checked pass by pass.",
    "tune": "Try many pipelines and write the best, with the front of all.",
    "sweep": "Do the same for many models, with one table.",
    "compile": "Write what a target's runtime loads in deployment.",
    "init": "Write an irc.toml for a model.",
    "build": "Build the release that irc.toml describes.",
    "verify": "Check a release: hashes, signature, numbers on this machine.",
    "serve-template": "Write what serves a release: FastAPI, Triton, OpenVINO Model Server.",
    "cache": "Show, check or trim what is kept between runs.",
    "bench": "Time models against each other, alternating.",
    "why": "Say why one model is slower, larger or worse than another.",
    "diff": "Write two models side by side for Model Explorer.",
    "compare": "Compare the numbers of two models, layer by layer if asked.",
    "generate": "Let a decoder write text, and say how fast.",
    "inspect": "Show what a model consists of.",
    "plan": "Print what a pass would decide, without doing it.",
    "sensitivity": "Rank what a pass would do to a model by what it costs.",
    "export": "Make an ONNX file of a checkpoint or another source.",
    "distill": "Train a small student of a large teacher.",
    "finetune": "Train a checkpoint on labelled data, whole or by an adapter.",
    "report": "Show a report, or turn it into Markdown, JUnit or HTML.",
    "passes": "List the passes, or explain one.",
    "operators": "List the operators, or which rules exist for them.",
    "targets": "List the targets and what this machine can run.",
    "new-pass": "Write a package with a pass of your own to start from.",
    "reproduce": "Run a failed pass again from its reproducer folder.",
    "ui": "Show runs, live measurements and jobs in a browser.",
    "mcp": "Serve tools for agents by the Model Context Protocol.",
    "completion": "Print the script that completes irc in bash, zsh or fish.",
}
"""Verb to one line; verb `x-y` is the command `x_y` in `irtools.cli.verbs.x_y`."""


class Terminated(BaseException):
    """SIGTERM arrived. Unwinds the stack, so that temporary files are removed."""


class _Verbs(click.Group):
    """Imports a verb only when it is used, so that `irc --help` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = name.replace("-", "_")
        command = getattr(importlib.import_module(f"irtools.cli.verbs.{module}"), module)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = not args or args[0] in VERBS or args[0].startswith("-")
        if not known and not ctx.resilient_parsing:
            if (told := advice(args[0])) is not None:
                raise click.UsageError(told, ctx)
            raise click.UsageError(f"there is no command {args[0]!r}{suggest(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = [CompletionItem(v, help=h) for v, h in VERBS.items() if v.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 2 usage, 3 bad model or data, 4 not supported, 5 a check or budget "
    "does not hold, 6 file or disk, 7 limit reached, 70 a bug of irc, 130/143 stopped.",
)
@click.version_option(__version__, prog_name="irc")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def cli(debug: bool) -> None:
    """An optimizing compiler for trained networks: prune, quantize and fuse ONNX models.

    Every pass is measured and checked. Try: irc optimize model.onnx --passes cleanup,int8
    """


def main() -> None:
    """Run `irc` and leave with its exit code."""
    defer_symbolic_algebra()
    code = run(sys.argv[1:])
    note_code(code)
    sys.exit(code)


def run(args: Sequence[str]) -> int:
    """Run `irc` with arguments and return its exit code."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(args)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run(args: Sequence[str]) -> int:
    debug = "--debug" in args
    # The flag may be anywhere: people add it to the end of a line that failed.
    rest = [a for a in args if a != "--debug"]
    if "_IRC_COMPLETE" in os.environ:
        from irtools.cli.shells import register

        register()
    try:
        code = cli.main(rest, prog_name="irc", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        return _fail(_usage_line(error), 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _fail("stopped", 130)
    except Terminated:
        return _fail("stopped by SIGTERM", 143)
    except BrokenPipeError:
        # The reader of our output left; the rest goes nowhere, and quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except IrtoolsError as error:
        return _explain(error, debug)
    except Exception as error:
        return _explain_bug(error, args, debug)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _usage_line(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx else "irc"
    return f"{error.format_message().removesuffix('.')} (see {path} --help)"


def _explain(error: IrtoolsError, debug: bool) -> int:
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    if debug:
        _show_traceback(error)
    if error.exit_code == 70:
        return _fail(f"internal error: {error}{notes}", 70)
    return _fail(f"{error}{notes}", error.exit_code)


def _explain_bug(error: Exception, args: Sequence[str], debug: bool) -> int:
    if debug:
        _show_traceback(error)
    if isinstance(error, MemoryError):
        return _fail("out of memory", 7)
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}", 6)
    from irtools.cli.crash import write_crash

    folder = write_crash(error, args)
    told = f"; please report it with the folder {folder}" if folder else ""
    return _fail(f"internal error: {type(error).__name__}: {error}{told}", 70)


def _show_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error, file=sys.stderr)


def _fail(message: str, code: int) -> int:
    print(f"irc: {printable(message, limit=2000)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
