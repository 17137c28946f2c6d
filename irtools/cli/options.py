"""Option types and options that several verbs share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from irtools.cli.types import DATA, FILE, FOLDER, TARGET, TRACKER

if TYPE_CHECKING:
    from irtools.data import DataSettings
    from irtools.goals import Goals

__all__ = [
    "NAMED_SIZE",
    "SIZES",
    "batch_option",
    "cache_options",
    "calibration_samples_option",
    "data_options",
    "data_settings",
    "effort_option",
    "fix_option",
    "goal_options",
    "goals_of",
    "json_option",
    "naming_data_option",
    "on_option",
    "past_option",
    "seed_option",
    "sequence_option",
    "size_option",
    "target_option",
    "threads_option",
    "track_option",
    "work_dir_option",
]

F = TypeVar("F", bound=Callable[..., Any])


class _Sizes(click.ParamType):
    """Positive integers joined by commas: `1,8`."""

    name = "n,n"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            sizes = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of sizes such as 1,8", param, ctx)
        if any(size < 1 for size in sizes):
            self.fail(f"{value!r} holds a size below 1", param, ctx)
        return sizes


class _NamedSize(click.ParamType):
    """An axis and its size: `sequence=64`."""

    name = "name=n"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        axis, _, size = str(value).rpartition("=")
        if not axis or not size.isdecimal() or int(size) < 1:
            self.fail(f"{value!r} is not an axis with a size such as sequence=64", param, ctx)
        return axis, int(size)


SIZES = _Sizes()
NAMED_SIZE = _NamedSize()


def target_option(function: F) -> F:
    """--target of every verb that runs models."""
    return click.option(
        "--target",
        "-t",
        type=TARGET,
        default="ort-cpu",
        show_default=True,
        help="What runs the model, with isa= for another machine (ort-cpu:isa=avx2); "
        "`irc targets` lists them.",
    )(function)


_GOALS: Mapping[str, tuple[str, str, bool]] = {
    "--max-drop": (
        "[METRIC=]SHARE",
        "Largest loss of the metric (1%: one point of accuracy; 0.01x: a hundredth of the "
        "original's) or, without labels, of top-1 agreement; again for another metric "
        "(f1-macro=2%). Passes that lose more are rolled back.",
        True,
    ),
    "--min-metric": (
        "[METRIC=]VALUE",
        "Least metric of the result: 0.95, or 0.99x of the original's.",
        True,
    ),
    "--speedup": ("N", "How many times faster than the original the result must be.", False),
    "--max-latency": ("TIME", "Longest median of a run: 10ms, or 50% of the original's.", False),
    "--max-size": ("SIZE", "Largest file: 25MB, or 25% of the original's.", False),
    "--max-memory": (
        "SIZE",
        "Largest peak memory of a process that runs it: 200MB, or 50% of the original's.",
        False,
    ),
}


def goal_options(function: F) -> F:
    """Options that say what a result must keep."""
    for flag, (metavar, text, several) in reversed(list(_GOALS.items())):
        option = click.option(
            flag, metavar=metavar, multiple=True, callback=None if several else _only, help=text
        )
        function = option(function)
    return function


def _only(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> str | None:
    """Refuse a goal that is given twice, of which click would take the last one."""
    if len(value) > 1:
        bounds = " and ".join(f"{param.opts[0]} {one}" for one in value)
        raise click.UsageError(f"two goals for one figure: {bounds}; give one of them", ctx)
    return value[0] if value else None


def goals_of(given: Mapping[str, Any]) -> Goals:
    """Return the goals that the options of `goal_options` state.

    Raises:
        UsageError: A bound that is none, or two for one figure.
    """
    from irtools.goals import Goals

    names = [flag.removeprefix("--").replace("-", "_") for flag in _GOALS]
    return Goals.of_options({name: given[name] for name in names})


def _distinct(
    ctx: click.Context, param: click.Parameter, value: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, int], ...]:
    """Refuse two sizes for one name, of which a mapping would keep the last."""
    for name, size in value:
        if (other := dict(value)[name]) != size:
            raise click.BadParameter(f"{name} is both {size} and {other}", ctx, param)
    return value


def fix_option(function: F) -> F:
    """--fix of every verb that writes models."""
    return click.option(
        "--fix",
        "sizes",
        type=NAMED_SIZE,
        metavar="AXIS=N",
        multiple=True,
        callback=_distinct,
        help="Fix a dynamic axis, by its name (sequence=64) or as INPUT.AXIS (input_ids.1=64): "
        "faster on OpenVINO, and what some devices need; callers pad to it.",
    )(function)


def size_option(function: F) -> F:
    """--size of every verb that draws inputs."""
    return click.option(
        "--size",
        "drawn_sizes",
        type=NAMED_SIZE,
        metavar="AXIS=N",
        multiple=True,
        callback=_distinct,
        help="Draw inputs with this size of a dynamic axis: by its name (frames=30), by an input "
        "with one such axis (audio=16000), or as INPUT.AXIS (audio.1=16000). [default: sizes on "
        "which the model runs]",
    )(function)


def threads_option(function: F) -> F:
    """--threads of every verb that runs models."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads for running models. [default: the CPU quota]",
    )(function)


def _use_work_dir(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Let this process and those it starts make temporary files there, until the verb ends."""
    if value is None or ctx.resilient_parsing:
        return
    place = Path(value).absolute()
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise click.BadParameter(f"{value} is not a folder that can be written into", ctx, param)
    before, cached = os.environ.get("TMPDIR"), tempfile.tempdir

    def restore() -> None:
        tempfile.tempdir = cached
        if before is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before

    os.environ["TMPDIR"] = tempfile.tempdir = str(place)
    ctx.call_on_close(restore)


def work_dir_option(function: F) -> F:
    """--work-dir of every verb that needs room for temporary files."""
    return click.option(
        "--work-dir",
        type=FOLDER,
        expose_value=False,
        callback=_use_work_dir,
        help="Where temporary files go, several times the model's size. "
        "[default: TMPDIR, else /tmp]",
    )(function)


def seed_option(function: F) -> F:
    """--seed of every verb that draws data."""
    return click.option(
        "--seed",
        type=click.IntRange(min=0),
        metavar="N",
        default=0,
        show_default=True,
        help="Seed of every random choice.",
    )(function)


def batch_option(function: F) -> F:
    """--batch of every verb that times models."""
    return click.option(
        "--batch", type=SIZES, default="1", show_default=True, help="Batch sizes to time at."
    )(function)


def sequence_option(function: F) -> F:
    """--seq of every verb that times models."""
    return click.option(
        "--seq",
        "sequence",
        type=SIZES,
        default="128",
        show_default=True,
        help="Sequence lengths to time at, where the model has such an axis.",
    )(function)


def past_option(function: F) -> F:
    """--past of every verb that times models."""
    return click.option(
        "--past",
        type=SIZES,
        help="Tokens in the cache of a decoder when it is timed on one more. "
        "[default: the lengths of --seq]",
    )(function)


def calibration_samples_option(function: F) -> F:
    """--samples of every verb that calibrates."""
    return click.option(
        "--samples",
        type=click.IntRange(min=1),
        metavar="N",
        help="Most samples to calibrate on, evenly spread over the data. [default: all]",
    )(function)


def data_options(function: F) -> F:
    """--tokenizer, --text, --label and --max-length of every verb that reads data."""
    for add in (_max_length, _label, _text, _tokenizer):
        function = add(function)
    return function


_tokenizer = click.option(
    "--tokenizer",
    type=FILE,
    help="The tokenizer.json for text, or its folder. [default: next to the data or the model]",
)
_text = click.option(
    "--text",
    multiple=True,
    metavar="COLUMN",
    help="Column that holds text; twice for pairs. [default: text, sentence, sentence1, ...]",
)
_label = click.option(
    "--label",
    metavar="COLUMN",
    help="Column, or array of an .npz, that holds labels. [default: label, labels, ...]",
)
_max_length = click.option(
    "--max-length",
    type=click.IntRange(min=1),
    metavar="N",
    help="Most tokens per text. [default: the model's fixed length, else the tokenizer's]",
)


def data_settings(given: Mapping[str, Any], *sources: str | None) -> DataSettings:
    """Turn the options of `data_options` into settings.

    Args:
        given: The options of the verb, `samples` among them where it calibrates.
        sources: The data that they are for.

    Raises:
        click.UsageError: Options about text and no text, or more than a pair of columns.
    """
    from irtools.data import DataSettings, SyntheticSettings, is_text

    present = [source for source in sources if source is not None]
    for name in ("tokenizer", "text", "label", "max_length"):
        fits = present if name == "label" else [source for source in present if is_text(source)]
        if given[name] and not fits:
            kind = "data" if name == "label" else "text (.jsonl, .csv, .tsv or .parquet)"
            raise click.UsageError(f"--{name.replace('_', '-')} is for {kind}, and none is given")
    if len(given["text"]) > 2:
        raise click.UsageError("--text names more than two columns, expected one or a pair")
    return DataSettings(
        tokenizer=None if given["tokenizer"] is None else Path(given["tokenizer"]),
        text_columns=tuple(given["text"]) or None,
        label_column=given["label"],
        max_length=given["max_length"],
        samples=given.get("samples"),
        synthetic=SyntheticSettings(sizes=dict(given.get("drawn_sizes", ())) or None),
    )


@contextmanager
def naming_data_option(option: str, given: str | None) -> Iterator[None]:
    """Let the error about data that cannot be drawn say which option gives some.

    Args:
        option: Such as `--data`.
        given: Its value; where there is one, the error is about that.

    Raises:
        DataError: As it was, with a note.
    """
    from irtools.errors import DataError

    try:
        yield
    except DataError as error:
        if given is None:
            error.add_note(f"with {option} FILE, such as an .npz with an array per input")
        raise


def effort_option(function: F) -> F:
    """--effort of every verb that measures pass by pass."""
    return click.option(
        "--effort",
        metavar="EFFORT",
        default="normal",
        show_default=True,
        help="How much time measuring may take: quick, normal, thorough, or seconds (90, 2m). How "
        "much is measured is planned from what one run of the model costs.",
    )(function)


def config_option(help_text: str) -> Callable[[F], F]:
    """--config of the verbs that read or write a file of builds."""
    return click.option(
        "--config",
        "-c",
        "config_file",
        type=FILE,
        default="irc.toml",
        show_default=True,
        help=help_text,
    )


def calibrate_option(function: F) -> F:
    """--calibrate of every verb that makes a model."""
    return click.option("--calibrate", type=DATA, help="Data for ranges and refits.")(function)


def evaluate_option(function: F) -> F:
    """--evaluate of every verb that makes a model."""
    return click.option(
        "--evaluate", type=DATA, help="Data for fidelity and, with labels, the metric."
    )(function)


def cache_options(function: F) -> F:
    """--cache-dir and --no-cache of every verb that compares with the original."""
    function = click.option("--no-cache", is_flag=True, help="Do not keep them.")(function)
    return click.option(
        "--cache-dir",
        metavar="DIR",
        help="Where results of passes and scores are kept between runs; `irc cache` shows it. "
        "[default: irtools in $XDG_CACHE_HOME or ~/.cache]",
    )(function)


def json_option(function: F) -> F:
    """--json of every verb with figures."""
    return click.option(
        "--json", "json_path", type=FILE, help="Write the figures as JSON; - is stdout."
    )(function)


def track_option(function: F) -> F:
    """--track of verbs that run passes."""
    return click.option(
        "--track",
        type=TRACKER,
        multiple=True,
        help="Write a run, with a step for each pass, to mlflow[:URI], tensorboard[:DIR] or "
        "wandb[:PROJECT]; again for further ones.",
    )(function)


def on_option(function: F) -> F:
    """--on of every verb whose work can be spread over machines."""
    return click.option(
        "--on",
        metavar="WORKERS",
        help="Where the work is spread: local:N (processes here), ray (the cluster that this runs "
        "in, else one started here), ray://HEAD:10001. Times are taken one at a time on a machine. "
        "[default: here, one after the other]",
    )(function)
