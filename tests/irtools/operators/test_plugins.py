"""An operator from outside: one line, and every room knows it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.channels import ChannelGroups
from irtools.analysis.costs import count_flops
from irtools.analysis.coverage import coverage
from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.errors import UsageError
from irtools.operators import find_op
from irtools.passmanager import PassContext, PassResult, Pipeline
from irtools.targets import find_target

_GUIDE = Path(__file__).parents[3] / "docs" / "adding-an-operator.md"
_ONE_LINE = 'Op("Softsnap", "acme", kind=Kind.UNARY, half_safe=True)'


@pytest.fixture(autouse=True)
def _no_modules() -> Iterator[None]:
    """Forget the modules of plug-ins that a test wrote; libraries stay loaded as they are."""
    before = set(sys.modules)
    yield
    for name in sys.modules.keys() - before:
        if name.endswith("_ops") and "." not in name:
            del sys.modules[name]


def test_the_guide_shows_this_line_and_files_that_exist() -> None:
    text = _GUIDE.read_text(encoding="utf-8")
    assert f"OPERATORS = {_ONE_LINE}\n" in text
    paths = re.findall(r"\b((?:irtools|passes|tests)/[\w/]+(?:\.py|/)?)", text)
    assert len(paths) > 10
    assert not [path for path in paths if not (_GUIDE.parents[1] / path).exists()]


def model() -> ir.Model:
    """Two products with an operator of another domain in between; nothing inside is declared."""
    found = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20, "acme" : 1]>'
        "g (float[batch,8] x, float[8,32] w_1, float[32,4] w_2) => (float[batch,4] y) {"
        "  a = MatMul (x, w_1)  b = acme.Softsnap (a)  y = MatMul (b, w_2) }"
    )
    rng = np.random.default_rng(0)
    for value in [v for v in found.graph.inputs if str(v.name).startswith("w")]:
        assert value.shape is not None
        array = rng.normal(0, 1, [int(d) for d in value.shape]).astype(np.float32)
        found.graph.inputs.remove(value)
        value.const_value = ir.Tensor(array, name=value.name)
        found.graph.register_initializer(value)
    return found


def run_pass(found: ir.Model, text: str) -> PassResult:
    base = find_target("ort-cpu")

    class Fake(type(base)):  # type: ignore[misc]
        @property
        def capabilities(self):
            return replace(base.capabilities, compute_dtypes=frozenset({"float16"}))

    def absent(*_: object) -> object:
        raise AssertionError("no data is needed")

    (pass_,) = Pipeline(text)
    return pass_.run(found, PassContext(Fake(), absent, absent, absent))


def middle(found: ir.Model) -> ir.Node:
    return next(node for node in found.graph if node.op_type == "Softsnap")


def test_without_a_declaration_nothing_is_guessed() -> None:
    found = model()
    node = middle(found)
    assert find_op("acme", "Softsnap") is None
    assert element_type(node.outputs[0]) is None
    assert SymbolicShapes.of(found).shape(node.outputs[0]) is None
    notes = count_flops(found, {"batch": 2}).notes
    assert "1 node of acme::Softsnap not counted: no cost rule" in notes
    assert "1 node of acme::Softsnap: no shape rule, what follows has no shape" in notes
    assert not ChannelGroups.of(found).groups


def test_with_one_line_shapes_types_and_costs_are_known(install: Callable) -> None:
    install(_ONE_LINE)
    found = model()
    node = middle(found)
    assert element_type(node.outputs[0]) == ir.DataType.FLOAT
    shape = SymbolicShapes.of(found).shape(node.outputs[0])
    assert [str(dim) for dim in shape or ()] == ["batch", "32"]
    costs = count_flops(found, {"batch": 2})
    assert (costs.total, costs.notes) == (2 * 2 * (8 * 32 + 32 * 4), ())


def test_with_one_line_it_is_pruned_through(install: Callable) -> None:
    install(_ONE_LINE)
    found = model()
    result = run_pass(found, "prune:ratio=0.5:round-to=1")
    assert result.counters["num-neurons-removed"] == 16
    assert "num-lacking-channel-rule" not in result.counters
    assert SymbolicShapes.of(found).shape(middle(found).outputs[0])[1] == 16  # type: ignore[index]


def test_with_one_line_it_computes_in_half_precision(install: Callable) -> None:
    install(_ONE_LINE)
    found = model()
    result = run_pass(found, "fp16")
    assert result.counters["num-computed"] == 3
    assert middle(found).outputs[0].dtype == ir.DataType.FLOAT16


def test_with_one_line_it_stands_in_the_coverage(install: Callable) -> None:
    install(_ONE_LINE)
    (row,) = [row for row in coverage() if row.op.key == "acme::Softsnap"]
    known = {name for name, answer in row.answers.items() if answer}
    assert known == {"type", "shape", "cost", "channels", "half", "rows"}


def test_a_pass_says_which_operators_it_does_not_know() -> None:
    pruned = run_pass(model(), "prune:ratio=0.5")
    assert "1 node of acme::Softsnap: no channel rule, 1 group could not be pruned" in pruned.notes
    assert pruned.counters["num-lacking-channel-rule"] == 1
    found = model()
    middle(found).outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    half = run_pass(found, "fp16")
    assert half.counters["num-lacking-half-rule"] == 1
    note = "1 node of acme::Softsnap in float32: whether it is safe in float16 is not declared"
    assert note in half.notes


def test_prune_names_operators_after_which_no_rank_is_known() -> None:
    found = model()
    first = next(iter(found.graph))
    odd = ir.node("Odd", [found.graph.inputs[0]], domain="acme")
    odd.outputs[0].name = "o"
    found.graph.insert_before(first, odd)
    first.replace_input_with(0, odd.outputs[0])
    lost = "1 node of acme::Odd: no shape rule, what follows has no known rank"
    assert lost in run_pass(found, "prune:ratio=0.5").notes


def test_a_plugin_may_bring_several_operators_and_rules_of_its_own(install: Callable) -> None:
    install(
        "(Op('Softsnap', 'acme', rules={'shape': lambda node, facts: [(7, 32)]}),"
        " Op('Join', 'acme', kind=Kind.ELEMENTWISE))"
    )
    found = model()
    assert SymbolicShapes.of(found).shape(middle(found).outputs[0]) == (7, 32)
    assert find_op("acme", "Join") is not None


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            "Op('Conv', kind=Kind.UNARY)",
            "the plug-in 'acme' declares operator Conv, which is known",
        ),
        ("7", "the plug-in 'acme' is 7, expected Op or several"),
        ("['Softsnap']", "the plug-in 'acme' holds 'Softsnap', expected Op"),
        (
            "Op('Odd', 'acme', rules={'shapes': print})",
            "the plug-in 'acme' gives acme::Odd a rule 'shapes'; did you mean 'shape'?",
        ),
        ("missing.name", "cannot be imported"),
    ],
)
def test_a_plugin_that_is_wrong_is_named(install: Callable, expression: str, message: str) -> None:
    install(expression if expression != "missing.name" else "__import__('no_such_module')")
    with pytest.raises(UsageError, match=re.escape(message)):
        find_op("acme", "Softsnap")
