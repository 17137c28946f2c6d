"""One text without padding goes through the model as it was, next to the form of tokens alone.

    y = If(one text, and every position a token)
            then: the nodes, without what moves rows
            else: the nodes, as they are

Both branches read the same weights. An If for each attention block would do the same, but OpenVINO
(2026.4) computes other numbers with one that reads results of nodes outside; this one reads
inputs and weights alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor
from irtools.model import Model, is_token_flags, iter_graphs, one_text

__all__ = ["choose_by_padding", "form_of_padding"]

_CHOICE = "choose_by_padding"
"""Name of the If."""
_SMALL = 1 << 10
"""Bytes up to which each branch has a copy of a constant: what importers want to see, as axes."""


def choose_by_padding(model: ir.Model) -> int:
    """Rewrite a model that computes tokens alone; returns how many choices there are, at most 1.

    Left as they are: models with other subgraphs, of operators whose weights an importer wants to
    see, and with a cache.
    """
    graph = model.graph
    flags = [node for node in graph if is_token_flags(node)]
    fits = len(flags) == 1 and len(list(iter_graphs(model))) == 1 and not model.functions
    standard = all(node.domain == "" for node in graph)
    if not (fits and standard) or any("past" in (value.name or "") for value in graph.inputs):
        return 0
    if not all(output.producer() is not None for output in graph.outputs):
        return 0
    editor = Editor(model, "lower")
    alone, packed = (_branch(editor, name) for name in ("alone", "packed"))
    _leave_rows_in_place(editor, alone)
    old, outputs = list(graph), list(graph.outputs)
    types = [(value.name, value.type, value.shape) for value in outputs]
    condition = _condition(editor, flags[0])
    names = [name or "" for name, _, _ in types]
    choice = editor.node(
        "If",
        [condition],
        {"then_branch": alone, "else_branch": packed},
        name=_CHOICE,
        outputs=len(names),
    )
    graph.append(choice)
    for place, (value, (name, kind, shape)) in enumerate(zip(choice.outputs, types, strict=True)):
        graph.outputs[place].name = None
        graph.outputs[place] = value
        value.name, value.type, value.shape = name, kind, shape
    editor.drop_unread(*old)
    return 1


def form_of_padding(model: Model | Path) -> Model | None:
    """Return a model with the branch for texts with padding alone; None where it has no choice.

    The layers of branches are counted and timed nowhere.
    """
    if isinstance(model, Path) and model.suffix != ".onnx":
        return None
    form = Model.load(model) if isinstance(model, Path) else model.clone()
    choice = next((node for node in form.ir.graph if node.name == _CHOICE), None)
    if choice is None:
        return None
    _leave_packed(form.ir, choice)
    return form


def _leave_packed(model: ir.Model, choice: ir.Node) -> None:
    graph = model.graph
    branch = choice.attributes["else_branch"].as_graph()
    nodes, results = list(branch), list(branch.outputs)
    branch.outputs.clear()
    branch.remove(nodes)
    graph.extend(nodes)
    for place, (old, new) in enumerate(zip(choice.outputs, results, strict=True)):
        name, old.name = old.name, None
        graph.outputs[place] = new
        new.name = name
    condition = choice.inputs[0]
    graph.remove(choice, safe=True)
    Editor(model, "lower").drop_unread(condition)


def _branch(editor: Editor, name: str) -> ir.Graph:
    """Return a copy of a graph that reads the inputs and large weights of the original."""
    graph = editor.graph
    branch = graph.clone()
    for old, new in zip(graph.inputs, branch.inputs, strict=True):
        new.replace_all_uses_with(old)
    branch.inputs.clear()
    for key, value in list(branch.initializers.items()):
        content, outer = value.const_value, graph.initializers[key]
        del branch.initializers[key]
        if content is None or content.nbytes > _SMALL:
            value.replace_all_uses_with(outer)
            continue
        own = editor.constant(key, content, before=branch[0])
        value.replace_all_uses_with(own)
    for number, node in enumerate(branch):
        node.name = f"{node.name or number}/{name}"
        for value in node.outputs:
            value.name = f"{value.name}/{name}" if value.name else value.name
    branch.name = f"{graph.name}_{name}"
    return branch


def _leave_rows_in_place(editor: Editor, branch: ir.Graph) -> None:
    """Take out what moves rows, as far as nodes say what they are of one text without padding."""
    for node in list(branch):
        noted, stem = one_text(node), f"{node.name}/rows"
        if noted is None:
            continue
        if noted.source is None:
            new = editor.constant(stem, np.zeros(noted.shape or (), np.int64), before=node)
        else:
            source = node.inputs[noted.source]
            assert source is not None
            new = source
            if noted.shape is not None:
                sizes = np.asarray(noted.shape, np.int64)
                shape = editor.constant(f"{stem}_shape", sizes, before=node)
                made = {stem: node.outputs[0].dtype}
                new = editor.before(node, "Reshape", [source, shape], outputs=made)
        node.outputs[0].replace_all_uses_with(new, replace_graph_outputs=True)
    editor.drop_unread(*branch)


def _condition(editor: Editor, flags: ir.Node) -> ir.Value:
    """Return a bool: there is one text, and all its positions are tokens."""
    integer, boolean = ir.DataType.INT32, ir.DataType.BOOL
    after, seen = editor.after, flags.outputs[0]
    scalar = ir.Shape([])

    def add(name: str, op: str, *inputs: ir.Value, dtype: ir.DataType, **form: int) -> ir.Value:
        return after(inputs[0], op, inputs, form, outputs={name: dtype}, shape=scalar)

    numbers = after(seen, "Cast", [seen], {"to": int(integer)}, outputs={"token_numbers": integer})
    least = add("all_tokens_number", "ReduceMin", numbers, dtype=integer, keepdims=0)
    tokens = add("all_tokens", "Cast", least, dtype=boolean, to=int(boolean))
    zero, one = (editor.constant("one_text_constant", np.asarray(n, np.int64)) for n in (0, 1))
    sizes = after(
        seen, "Shape", [seen], outputs={"token_sizes": ir.DataType.INT64}, shape=ir.Shape([2])
    )
    texts = add("texts", "Gather", sizes, zero, dtype=ir.DataType.INT64, axis=0)
    alone = add("one_text", "Equal", texts, one, dtype=boolean)
    return add("one_text_of_tokens", "And", tokens, alone, dtype=boolean)
