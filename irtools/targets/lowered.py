"""The form of a model that is written, timed and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from irtools.model import Model
    from irtools.targets.base import Capabilities, Target

__all__ = ["lower_file_version", "lowered"]


def lowered(model: Model, target: Target, *, portable: bool = False) -> Model:
    """Return a copy in the forms of a target, without what the exporter noted on the way.

    Exporters write stack traces and module scopes on every node, which passes read as provenance:
    about 0.1 MB for each transformer layer that deployment does not need.

    Args:
        model: A model after its last pass.
        target: What runs it.
        portable: Standard operators only; leave out the target's own forms.
    """
    copy = model.clone()
    if not portable:
        target.lower(copy.ir)
    _strip_notes(copy.ir)
    return copy


def lower_file_version(model: ir.Model, capabilities: Capabilities) -> Mapping[str, int]:
    """Lower the version of the file format to one that a runtime reads.

    It refuses newer ones unseen. What makes them newer is new types and opsets, which have
    checks of their own.

    Returns:
        As `Target.lower`.
    """
    if model.ir_version is None or model.ir_version <= capabilities.max_ir_version:
        return {}
    model.ir_version = capabilities.max_ir_version
    return {"ir-version": 1}


def _strip_notes(model: ir.Model) -> None:
    from irtools.model import iter_graphs

    for graph in iter_graphs(model):
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            value.metadata_props.clear()
