"""Sources of `irc bench` and `irc compare`: models, and files that a runtime alone can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irtools.errors import UsageError

if TYPE_CHECKING:
    from irtools.measure import Limits
    from irtools.model import Model
    from irtools.sources import LoadOptions
    from irtools.targets import Target

__all__ = ["CompiledFile", "check_used", "load_contender"]


@dataclass(frozen=True)
class CompiledFile:
    """What `irc compile` wrote in the format of a runtime, such as `.ort`.

    Attributes:
        path: The file.
        stub: A model with its inputs and nothing else, for drawing feeds.
    """

    path: Path
    stub: Model


def check_used(sources: Sequence[str], options: LoadOptions) -> None:
    """Refuse options about sources that no source takes.

    Raises:
        OptionError: All of them are files, which are models already.
    """
    from irtools.errors import OptionError

    given = options.given()
    if given and not any(map(_is_exported, sources)):
        raise OptionError(
            f"{', '.join(given)} belong to an export, and all of {', '.join(sources)} are files"
        )


def _is_exported(source: str) -> bool:
    return not Path(source).is_file()


def load_contender(
    source: str, target: Target, options: LoadOptions | None = None
) -> Model | CompiledFile:
    """Load a source; a file in one of the target's own formats stays a file.

    The runtime meets it in a child process.

    Args:
        options: For a source that is exported.

    Raises:
        UnsupportedError: The runtime refuses the file.
        IrtoolsError: As `load_source`.
    """
    from irtools.sources import LoadOptions, load_source

    path = Path(source)
    suffix = path.suffix.removeprefix(".")
    if suffix == "onnx" or suffix not in target.formats or not path.is_file():
        wanted = options if options is not None and _is_exported(source) else LoadOptions()
        return load_source(source, wanted)
    from irtools.measure import Limits

    return CompiledFile(path, _stub(path, target, Limits(seconds=600.0)))


def _stub(path: Path, target: Target, limits: Limits) -> Model:
    import numpy as np
    import onnx_ir as ir

    from irtools.measure import run_isolated, target_text
    from irtools.measure.jobs import describe_inputs
    from irtools.model import Model

    text = target_text(target)
    label = f"{target.name} on {path.name}"
    inputs = []
    for found in run_isolated(describe_inputs, path, text, limits=limits, label=label):
        if found["dtype"] is None or found["shape"] is None:
            raise UsageError(f"{path}: input {found['name']!r} is no dense tensor of known rank")
        is_text = found["dtype"] == "object"
        dtype = ir.DataType.STRING if is_text else ir.DataType.from_numpy(np.dtype(found["dtype"]))
        # Names of dynamic axes are lost; those at one place are most likely the same size.
        sizes = [
            f"{'batch' if axis == 0 else f'axis{axis}'}" if size is None else size
            for axis, size in enumerate(found["shape"])
        ]
        inputs.append(ir.val(found["name"], dtype, sizes))
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": 20}, name=path.stem)
    return Model(ir.Model(graph, ir_version=10))
