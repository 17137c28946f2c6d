"""Which outputs list what is largest first."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from irtools.analysis.rankings import ranked_outputs

_CHOOSE = (
    "s, i = TopK (scores, k) "
    "r = Expand (i3, wide) b = GatherElements <axis = 1> (boxes, r) y = Neg (b)"
)


def _model(body: str, output: str, k: int = 3) -> ir.Model:
    return ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> '
        f"g (float[n,9] scores, float[n,9,4] boxes) => ({output}) "
        f"<int64[1] k = {{{k}}}, int64[1] ax = {{2}}, int64[3] wide = {{1,1,4}}> {{ {body} }}"
    )


_DETECTOR = _CHOOSE.replace("r = Expand", "i3 = Unsqueeze (i, ax) r = Expand")


@pytest.mark.parametrize(
    ("body", "output", "k", "expected"),
    [
        (_DETECTOR, "float[n,3,4] y", 3, {"y"}),
        # One row has no order.
        (_DETECTOR, "float[n,1,4] y", 1, set()),
        # The rows are those of the input; two of them are chosen for a sum, as experts are.
        (
            _DETECTOR.replace("y = Neg (b)", "m = ReduceSum (b, ax) y = Add (boxes, m)"),
            "float[n,9,4] y",
            2,
            set(),
        ),
        # Places themselves are discrete.
        ("s, y = TopK (scores, k)", "int64[n,3] y", 3, set()),
        ("s, i = TopK (scores, k) y = Neg (boxes)", "float[n,9,4] y", 9, set()),
    ],
    ids=["a detector", "one row", "a mixture", "places", "nothing gathered"],
)
def test_rows_chosen_by_a_topk(body: str, output: str, k: int, expected: set[str]) -> None:
    assert ranked_outputs(_model(body, output, k)) == expected


def test_k_was_an_attribute_before_opset_10() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 5, opset_import: ["" : 9]> '
        "g (float[n,9] scores, float[9,4] boxes) => (float[n,3,4] y) "
        "{ s, i = TopK <k = 3> (scores) y = Gather (boxes, i) }"
    )
    assert ranked_outputs(model) == {"y"}
