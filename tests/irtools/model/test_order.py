"""Files whose nodes are not sorted, as converters to half precision leave them."""

from __future__ import annotations

import onnx
import pytest

from irtools.errors import ModelError
from irtools.model import Model

_HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'
_TAIL = "(float[2] x) => (float[2] y)\n"

_APPENDED = f"""agraph {_TAIL}{{
  a = Relu (first)
  b = Neg (x)
  c = Exp (b)
  last = Add (a, c)
  first = Cast <to = 1> (x)
  y = Cast <to = 1> (last)
}}"""

_IN_BRANCH = f"""agraph {_TAIL}{{
  flag = Constant <value = bool {{1}}> ()
  y = If (flag) <
    then_branch = then_graph () => (float[2] t) {{ t = Neg (later)  later = Abs (outer) }},
    else_branch = else_graph () => (float[2] e) {{ e = Neg (x) }}
  >
  outer = Exp (x)
}}"""

_CIRCLE = f"""agraph {_TAIL}{{
  y = Add (x, b)
  a = Neg (b)
  b = Exp (a)
}}"""


def _load(text: str) -> Model:
    return Model.from_proto(onnx.parser.parse_model(_HEADER + text))


def _outputs(model: Model) -> list[str]:
    return [node.outputs[0].name or "" for node in model.ir.graph]


def test_only_what_comes_too_early_moves() -> None:
    model = _load(_APPENDED)
    assert _outputs(model) == ["b", "c", "first", "a", "last", "y"]
    [note] = model.notes
    assert "1 node came before what they read" in note


def test_a_branch_is_sorted_and_its_node_comes_after_what_it_reads_from_outside() -> None:
    model = _load(_IN_BRANCH)
    assert _outputs(model) == ["flag", "outer", "y"]
    branch = model.ir.graph[2].attributes["then_branch"].as_graph()
    assert [node.op_type for node in branch] == ["Abs", "Neg"]


def test_a_sorted_file_keeps_its_order_and_has_no_note() -> None:
    text = f"agraph {_TAIL}{{ b = Neg (x)  a = Exp (x)  y = Add (a, b) }}"
    model = _load(text)
    assert _outputs(model) == ["b", "a", "y"]
    assert not model.notes


def test_a_circle_is_refused() -> None:
    with pytest.raises(ModelError, match="cycle"):
        _load(_CIRCLE)
