"""The driver of rules: order, vetoes, how often a match is tried."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir
import pytest

from irtools.editing import RULE, Editor, Place, Rule, Veto, require, rewrite, survey
from irtools.model import print_model, verify

NEGATIONS = ir.from_onnx_text(
    '<ir_version: 10, opset_import: ["" : 20]> g (float[4] x) => (float[4] y) '
    "{ a = Neg(x)  b = Neg(a)  c = Relu(b)  d = Neg(c)  e = Abs(d)  f = Neg(e)  y = Neg(f) }"
)


class TwoNegations(Rule[ir.Value]):
    """-(-x)  ->  x"""

    name: ClassVar[str] = "two-negations"
    anchors = ("Neg",)

    def find(self, anchor: ir.Node) -> ir.Value:
        inner = anchor.inputs[0]
        maker = None if inner is None else inner.producer()
        require(maker is not None, "not two", named=False)
        assert maker is not None
        require(maker.op_type == "Neg", "{} is not negated, but {}", "x", (maker.op_type, 1))
        assert maker.inputs[0] is not None
        return maker.inputs[0]

    def build(self, editor: Editor, anchor: ir.Node, found: ir.Value) -> None:
        place = Place(editor, anchor, replaces=(anchor,))
        editor.substitute(anchor.outputs[0], place.value("Identity", [found]))
        editor.drop_unread(anchor)


class Never(TwoNegations):
    """Looks at what the next rule takes."""

    name: ClassVar[str] = "never"

    def find(self, anchor: ir.Node) -> ir.Value:
        raise Veto("never", named=False)


def test_a_survey_changes_nothing_and_names_near_misses() -> None:
    model = NEGATIONS.clone()
    before = print_model(model)
    seen = survey(model.graph, [TwoNegations()])
    assert [node.outputs[0].name for node in seen.found] == ["b", "y"]
    reasons = [veto.reason for _, veto in seen.refused]
    assert reasons == ["x is not negated, but [Relu, 1]", "x is not negated, but [Abs, 1]"]
    assert seen.tried == 5 and print_model(model) == before


def test_the_first_rule_that_matches_is_applied_and_named() -> None:
    model = NEGATIONS.clone()
    done = rewrite(Editor(model, "pass"), [Never(), TwoNegations(), Never()])
    assert done.counts == {"two-negations": 2} and done.total == 2
    made = [node for node in model.graph if node.op_type == "Identity"]
    assert [node.metadata_props[RULE] for node in made] == ["two-negations"] * 2
    assert [node.op_type for node in model.graph].count("Neg") == 1
    verify(model)


def test_each_anchor_is_tried_once_per_rule_and_no_other_node_is() -> None:
    """What rules cost: applications, counted, so that no clock is needed."""
    model = NEGATIONS.clone()
    seen = survey(model.graph, [TwoNegations()])
    done = rewrite(Editor(model, "pass"), [TwoNegations()], seen.found)
    assert (seen.tried, done.tried) == (5, 2)
    assert rewrite(Editor(model, "pass"), [TwoNegations()]).tried == 1


def test_anchors_that_went_are_skipped() -> None:
    model = NEGATIONS.clone()
    anchors = [node for node in model.graph if node.op_type == "Neg"]
    done = rewrite(Editor(model, "pass"), [TwoNegations()], [*anchors, *anchors])
    assert done.total == 2


def test_a_reason_is_made_when_it_is_asked_for() -> None:
    class Loud:
        def __str__(self) -> str:
            raise AssertionError("asked for")

    veto = Veto("because of {}", Loud())
    with pytest.raises(AssertionError, match="asked for"):
        _ = veto.reason
    assert Veto("{} of {}, {:g}", "x", (1, "N"), 0.5).reason == "x of [1, N], 0.5"
    assert Veto("{} is not {}", "the mask", (1, "N")).kind == "the mask is not "
    assert Veto("braces {stay}").kind == "braces {stay}"
    assert Veto("sizes {}", [1, 2]).reason == "sizes 1, 2"
    assert Veto("braces {stay} where there is no detail").reason.count("{") == 1
