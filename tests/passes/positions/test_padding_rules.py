"""Rules for what operators make of padding, each by itself."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from irtools.analysis.shapes import SymbolicShapes
from irtools.passes.positions.padding.attention import rotary
from irtools.passes.positions.padding.base import MixedError, Pad, Pads, TokenAxes

_TURNED = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[N,S,16] x, float[N,S,4] cosine, float[N,S,4] sine) => (float[N,S,16] y) {
  y = RotaryEmbedding <num_heads = 2> (x, cosine, sine)
}
"""
_HERE = {TokenAxes(0, 1): Pad(None, kept=False)}
_ELSEWHERE = {TokenAxes(0, 2): Pad(None, kept=False)}


class _Known:
    """A reader that knows what some inputs hold at padding."""

    def __init__(self, model: ir.Model, known: dict[str, Pads]) -> None:
        self.facts = SymbolicShapes.of(model)
        self._known = known

    def of(self, value: ir.Value | None) -> Pads:
        return {} if value is None else self._known.get(value.name or "", {})


def _turned(known: dict[str, Pads]) -> Pads:
    model = ir.from_onnx_text(_TURNED)
    (found,) = rotary(model.graph[0], _Known(model, known))
    return found


@pytest.mark.parametrize("name", ["x", "cosine", "sine"])
def test_rotary_rows_are_changed_where_rows_or_angles_are(name: str) -> None:
    assert _turned({name: _HERE}) == _HERE
    assert _turned({}) == {}
    with pytest.raises(MixedError):
        _turned({name: _ELSEWHERE})
