"""Sources of `irc bench` and `irc compare`: models, and files that a runtime alone can read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irtools.errors import DataError, OptionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from irtools.data import Dataset, DataSettings
    from irtools.measure.timing import Contender
    from irtools.metrics import Metric
    from irtools.model import Model
    from irtools.sources import LoadOptions
    from irtools.targets import Target

__all__ = [
    "check_used",
    "choose_contest_metric",
    "load_contender",
    "read_for_contenders",
    "read_samples",
    "split_target",
]

_TARGETS = "irtools.targets"


def split_target(text: str) -> tuple[str, str | None]:
    """Split `SRC@TARGET`; a file or folder whose name holds an @ is a source as it is.

    Returns:
        The source, and the text of its target; None where it names none.
    """
    from irtools.plugins import registry

    source, at, target = text.rpartition("@")
    if not at or not source or Path(text).exists():
        return text, None
    known = target.partition(":")[0] in registry.names(_TARGETS)
    return (source, target) if known or Path(source).exists() else (text, None)


def check_used(sources: Sequence[str], options: LoadOptions) -> None:
    """Refuse options about sources that no source takes.

    Raises:
        OptionError: All of them are files, which are models already.
    """
    given = options.given()
    if given and not any(map(_is_exported, sources)):
        raise OptionError(
            f"{', '.join(given)} would be for an export, and all of {', '.join(sources)} are files"
        )


def _is_exported(source: str) -> bool:
    return not Path(source).is_file()


def load_contender(source: str, target: Target, options: LoadOptions | None = None) -> Model | Path:
    """Load a source; a file in one of the target's own formats stays a file.

    The runtime meets it in a child process.

    Args:
        options: For a source that is exported.

    Raises:
        UsageError: It is the file of a runtime that is not the target's.
        IrtoolsError: As `load_source`.
    """
    from irtools.sources import LoadOptions, load_source

    path = Path(source)
    suffix = path.suffix.removeprefix(".")
    if suffix == "onnx" or not path.is_file():
        wanted = options if options is not None and _is_exported(source) else LoadOptions()
        return load_source(source, wanted)
    if suffix in target.formats:
        return path
    if owners := _targets_of(suffix):
        raise UsageError(
            f"{source} is a compiled file of {' or '.join(owners)}, and {target.name} reads "
            f"{' and '.join('.' + known for known in target.formats)}: run it there "
            f"({source}@{owners[0]}), or compile the model for {target.name}"
        )
    return load_source(source)


def _targets_of(suffix: str) -> list[str]:
    """Return the targets that have a format of their own with a suffix."""
    from irtools.plugins import registry

    names = registry.names(_TARGETS)
    return [name for name in names if suffix in registry.load(_TARGETS, name).formats]


def read_for_contenders(
    source: str, contenders: Mapping[str, Contender], settings: DataSettings
) -> dict[str, Dataset]:
    """Read evaluation data as each contender takes it: text with the tokenizer next to it.

    A compiled file without a tokenizer next to it is left out, and takes what the first of the
    others takes.

    Raises:
        DataError: It does not fit one of them; names it.
        FileError: It cannot be read.
    """
    models = dict(_encoding_models(source, contenders, settings))
    if source == "synthetic":
        models = dict([*models.items()][:1])  # The same samples for all.
    if not models:
        name, first = next(iter(contenders.items()))
        models = {name: _described(first)}
    return {name: _read(name, source, model, settings) for name, model in models.items()}


def read_samples(
    source: str, contenders: Mapping[str, Contender], settings: DataSettings
) -> Dataset:
    """Read samples to time on, as the first model takes them; a compiled file says less of itself.

    Raises:
        IrtoolsError: As `read_for_contenders`.
    """
    names = [name for name, c in contenders.items() if not isinstance(c.model, Path)]
    first = next(iter(names or contenders))
    return read_for_contenders(source, {first: contenders[first]}, settings)[first]


def choose_contest_metric(
    wanted: str | None, data: Dataset, contenders: Mapping[str, Contender]
) -> Metric | None:
    """As `choose_metric`, by the first model; compiled files say nothing of their outputs.

    Raises:
        IrtoolsError: As `choose_metric`.
    """
    import onnx_ir as ir

    from irtools.driver.inputs import choose_metric
    from irtools.model import Model

    unknown = Model(ir.Model(ir.Graph([], [], nodes=[]), ir_version=10))
    models = [c.model for c in contenders.values() if not isinstance(c.model, Path)]
    return choose_metric(wanted, data, data, (models or [unknown])[0])


def _encoding_models(
    source: str, contenders: Mapping[str, Contender], settings: DataSettings
) -> Iterator[tuple[str, Model]]:
    from irtools.data import is_text

    for name, contender in contenders.items():
        model = contender.model
        if not isinstance(model, Path):
            yield name, model
        elif is_text(source) and settings.tokenizer is None and _has_tokenizer(model):
            yield name, _described(contender)


def _has_tokenizer(file: Path) -> bool:
    return file.with_name("tokenizer.json").is_file()


def _described(contender: Contender) -> Model:
    from irtools.measure.contest import describe

    assert isinstance(contender.model, Path)
    return describe(contender.model, contender.target)


def _read(name: str, source: str, model: Model, settings: DataSettings) -> Dataset:
    from irtools.driver.inputs import read_evaluation

    try:
        data = read_evaluation(source, model, settings)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    assert data is not None
    return data
