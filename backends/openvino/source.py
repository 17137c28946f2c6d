"""Handing a model to OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irtools.backends.openvino.library import clean_message, import_openvino, release
from irtools.errors import FileError, UnsupportedError
from irtools.files import scratch_folder

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.model import Model

__all__ = ["DeclaredInputs", "ImportedModel", "import_model", "named", "write_model"]

_IN_MEMORY_UP_TO = 64 << 20
# Bytes are held three times while they are parsed; files are mapped.
_REASONS = ("Unsupported type", "No conversion rule found")
"""Words of refusals that another form of the model may answer."""


@dataclass(frozen=True)
class ImportedModel:
    """An OpenVINO model and the names that callers know.

    Attributes:
        model: `openvino.Model`.
        outputs: Output names as the source spells them.
        declared: Returns the inputs that the source declares.
    """

    model: Any
    outputs: tuple[str, ...]
    declared: Callable[[], DeclaredInputs]


@dataclass(frozen=True)
class DeclaredInputs:
    """Inputs of a source, which the importer does not keep as they are.

    It drops most that no node reads, and calls one that passes through a Dropout by the name of
    the result.

    Attributes:
        read: Names of those that are read, in order.
        unread: Names of the others.
    """

    read: tuple[str, ...] = ()
    unread: frozenset[str] = frozenset()

    @classmethod
    def of(cls, graph: ir.Graph) -> DeclaredInputs:
        values = [value for value in graph.inputs if not value.is_initializer()]
        read = [value for value in values if value.uses() or value.is_graph_output()]
        return cls(
            tuple(value.name or "" for value in read),
            frozenset(value.name or "" for value in values if value not in read),
        )

    def imported_as(self, ports: Sequence[Collection[str]]) -> dict[str, int]:
        """Return which input became which parameter, by the names that the parameters have."""
        declared = self.unread.union(self.read)
        known = {name: i for i, names in enumerate(ports) for name in names if name in declared}
        lost = [name for name in self.read if name not in known]
        renamed = [i for i in range(len(ports)) if i not in known.values()]
        # The order is kept.
        return known | (dict(zip(lost, renamed, strict=True)) if len(lost) == len(renamed) else {})


def import_model(core: Any, model: Model | Path) -> ImportedModel:
    """Read a model with OpenVINO's importer.

    The importer ends the process on some malformed nodes, so what is untrusted goes through
    the verifier and `irtools.measure.probe` first.

    Raises:
        UnsupportedError: The importer refuses the model.
    """
    if isinstance(model, Path):
        imported = _read_file(core, model)
        return ImportedModel(imported, _names_in_file(imported, model), partial(_inputs_in, model))
    from irtools.backends.openvino.readable import readable

    names = tuple(value.name or "" for value in model.ir.graph.outputs)
    inputs = DeclaredInputs.of(model.ir.graph)
    imported = _import_from_memory(core, readable(model))
    return ImportedModel(imported, names, lambda: inputs)


def write_model(imported: ImportedModel, path: Path) -> None:
    """Write `.xml` and `.bin`.

    Raises:
        FileError: The files cannot be written.
    """
    ov = import_openvino()
    model = named(imported).model
    _number_nodes(model)
    try:
        # The default halves float32 weights.
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise FileError(f"OpenVINO cannot write {path.name}: {clean_message(error)}") from error


def named(imported: ImportedModel) -> ImportedModel:
    """Give inputs and outputs the names, and those alone, that callers know; in place."""
    for output, name in zip(imported.model.outputs, imported.outputs, strict=True):
        # Values that became one carry all their names; callers ask for the model's.
        output.get_tensor().set_names({name})
    for name, port in _renamed_inputs(imported):
        port.get_tensor().set_names({name})
    return imported


def _number_nodes(model: Any) -> None:
    """Number the nodes that OpenVINO has named itself by their order in this model.

    Its numbers count all nodes that the process has made, so that the same model would be written
    with other names after another one.
    """
    nodes = list(model.get_ordered_ops())
    unnamed = [node for node in nodes if node.get_friendly_name() == node.get_name()]
    taken = {node.get_friendly_name() for node in nodes} - {n.get_name() for n in unnamed}
    for number, node in enumerate(unnamed):
        name = f"{node.get_type_name()}_{number}"
        while name in taken:
            name = f"{name}_"
        taken.add(name)
        node.set_friendly_name(name)


def _renamed_inputs(imported: ImportedModel) -> Iterator[tuple[str, Any]]:
    """Yield the parameters that have lost the name of their input, with that name."""
    ports = imported.model.inputs
    names = [port.get_names() for port in ports]
    for name, index in imported.declared().imported_as(names).items():
        if name not in names[index]:
            yield name, ports[index]


def _import_from_memory(core: Any, model: Model) -> Any:
    import onnx_ir as ir

    weights = (value.const_value for value in model.ir.graph.initializers.values())
    size = sum(tensor.nbytes for tensor in weights if tensor is not None)
    if size <= _IN_MEMORY_UP_TO and not _has_external(model.ir):
        return _read(core, ir.to_proto(model.ir).SerializeToString())
    with scratch_folder("openvino") as folder:
        path = folder / "model.onnx"
        model.save(path, external_data=True)
        # Mapped weights stay readable after the folder is gone.
        return _read(core, str(path))


def _read_file(core: Any, path: Path) -> Any:
    try:
        imported = _read(core, str(path))
    except UnsupportedError as error:
        if path.suffix != ".onnx" or not any(reason in str(error) for reason in _REASONS):
            raise
        found = _read_rewritten(core, path)
        if found is None:
            raise
        return found
    if path.suffix == ".onnx" and _has_open_rank(imported):
        return _read_rewritten(core, path) or imported
    return imported


def _read_rewritten(core: Any, path: Path) -> Any:
    """Read a file in forms that OpenVINO takes; None: it has none in other forms."""
    from irtools.backends.openvino.readable import readable
    from irtools.model import Model

    model = Model.load(path)
    rewritten = readable(model)
    return None if rewritten is model else _import_from_memory(core, rewritten)


def _has_open_rank(imported: Any) -> bool:
    """Whether a Squeeze leaves open how many axes are left."""
    return any(
        node.get_type_name() == "Squeeze" and node.output(0).get_partial_shape().rank.is_dynamic
        for node in imported.get_ops()
    )


def _has_external(model: ir.Model) -> bool:
    import onnx_ir as ir

    return any(
        isinstance(value.const_value, ir.ExternalTensor)
        for graph in model.graphs()
        for value in graph.initializers.values()
    )


def _read(core: Any, source: str | bytes) -> Any:
    try:
        return core.read_model(source)
    except RuntimeError as error:
        raise UnsupportedError(
            f"OpenVINO {release()} refuses the model: {clean_message(error)}"
        ) from error


def _names_in_file(imported: Any, path: Path) -> tuple[str, ...]:
    known: Sequence[set[str]] = [output.get_names() for output in imported.outputs]
    if path.suffix == ".onnx" and any(len(names) != 1 for names in known):
        import onnx_ir as ir

        # Several ONNX values became one; only the file says which of them is the output.
        return tuple(value.name or "" for value in ir.load(path).graph.outputs)
    return tuple(min(names) if names else f"output{i}" for i, names in enumerate(known))


def _inputs_in(path: Path) -> DeclaredInputs:
    if path.suffix != ".onnx":
        return DeclaredInputs()
    import onnx_ir as ir

    return DeclaredInputs.of(ir.load(path).graph)
