"""What a node that we made says of where it comes from, in its metadata."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.model import ONE_TEXT

__all__ = ["MAKER", "REPLACED", "RULE", "SCOPES", "maker_of", "note_maker", "provenance"]

SCOPES = "pkg.torch.onnx.name_scopes"
"""The modules around a node, the outermost first, and then its own name."""
RULE = "pkg.irtools.rule"
"""The pass or rule that made the node."""
REPLACED = "pkg.irtools.replaced"
"""Names of the nodes whose work it does now, joined by commas."""

MAKER = "irtools.maker"
"""The same of a constant; it stays in memory."""


def maker_of(constant: ir.Value) -> str:
    """Return the pass or rule that made a constant; '' for one of the file."""
    return str(constant.meta.get(MAKER, ""))


def note_maker(constant: ir.Value, maker: str) -> None:
    """Say of a constant that was written and read again what made it; see `maker_of`."""
    constant.meta[MAKER] = maker


def provenance(
    rule: str, name: str | None, origin: ir.Node | None, replaces: Sequence[ir.Node] = ()
) -> dict[str, str]:
    """Return the metadata of a new node.

    Args:
        rule: What makes it.
        name: Of the new node.
        origin: The node that it grows out of. One that replaces others takes over all that the
            exporter noted at it, but for `irtools.model.ONE_TEXT`; one that is only added next to
            it, the module that it is in.
        replaces: Nodes that it replaces; one whose name it keeps is not listed.
    """
    known = {} if origin is None else origin.metadata_props
    found = dict(known) if replaces else {key: known[key] for key in (SCOPES,) if key in known}
    found.pop(REPLACED, None)
    found.pop(ONE_TEXT, None)
    found[RULE] = rule
    gone = [node.name or node.op_type for node in replaces if not name or node.name != name]
    if gone:
        found[REPLACED] = ",".join(gone)
    return found
