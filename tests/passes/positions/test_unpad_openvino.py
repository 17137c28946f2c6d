"""The form for OpenVINO: a branch for one text without padding, which is the model as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

from irtools.backends.openvino.lowering import lower
from irtools.backends.openvino.padding_choice import form_of_padding
from irtools.editing import Editor
from irtools.model import Interface, Model, iter_graphs, one_text, verify
from irtools.targets import RunnerOptions, find_target

from .conftest import FIRST, FUSED, TURNED_BY_COUNT, WRITTEN, block, decibels, feeds
from .test_unpad_orders import made

CASES = [
    pytest.param(WRITTEN, FIRST, id="written"),
    pytest.param(FUSED, FIRST, id="fused"),
    pytest.param(TURNED_BY_COUNT, FIRST, id="rotary"),
    pytest.param(FUSED, "y = MatMul(hidden, head)", id="every-position"),
]


def block_of(attention: str, reading: str) -> ir.Model:
    outputs = "float[N,4] y" if reading == FIRST else "float[N,S,4] y"
    return block(attention, reading, outputs)


def forms(attention: str, reading: str) -> tuple[ir.Model, ir.Model, ir.Model]:
    """Return a block, the same of tokens alone, and that lowered."""
    before = block_of(attention, reading)
    packed, products = made(before, "unpad", "openvino-cpu:isa=vnni")
    assert products
    lowered = packed.clone()
    assert lower(lowered, find_target("openvino-cpu:isa=vnni").capabilities)["padding-choice"] == 1
    verify(lowered, interface=Interface.of(before))
    return before, packed, lowered


def texts(model: ir.Model, lengths: Sequence[int], longest: int) -> dict[str, np.ndarray]:
    """Return inputs whose texts have some lengths."""
    ends = np.asarray(lengths)[:, None]
    return {
        **feeds(model, len(ends), longest),
        "mask": (np.arange(longest) < ends).astype(np.int64),
    }


def operators(graph: ir.Graph) -> Counter[str]:
    """Count operators, but for constants and changes of shape."""
    counts = Counter(node.op_type for node in graph)
    for name in ("Constant", "Reshape", "Squeeze", "Unsqueeze", "Identity"):
        del counts[name]
    return counts


@pytest.mark.parametrize(("attention", "reading"), CASES)
def test_branch_of_one_text_is_the_model_as_it_was(attention: str, reading: str) -> None:
    before, packed, lowered = forms(attention, reading)
    choice = next(iter(reversed(lowered.graph)))
    assert choice.op_type == "If"
    alone, other = (choice.attributes[name].as_graph() for name in ("then_branch", "else_branch"))
    assert operators(alone) == operators(before.graph)
    assert operators(other) == operators(packed.graph)
    weights = {v.name for v in before.graph.initializers.values() if v.const_value.nbytes > 1024}
    assert weights <= set(lowered.graph.initializers)


@pytest.mark.openvino
@pytest.mark.parametrize(("attention", "reading"), CASES)
def test_numbers_of_both_branches(attention: str, reading: str) -> None:
    before, _, lowered = forms(attention, reading)
    options = RunnerOptions(threads=1, exact=True)
    start = find_target("openvino-cpu").runner
    with start(Model(before), options) as first, start(Model(lowered), options) as second:
        for batch, length in ((1, 7), (4, 7), (3, 1)):
            arrays = feeds(before, batch, length)
            for mask in (arrays["mask"], np.ones_like(arrays["mask"])):
                given = {**arrays, "mask": mask}
                expected, found = (runner.run(given)["y"] for runner in (first, second))
                if mask.all() and batch == 1:
                    np.testing.assert_array_equal(expected, found)
                if reading != FIRST:
                    expected = np.where(mask[..., None], expected, 0)
                assert decibels(expected, found) >= 110


GROUPS = [
    pytest.param([16, 8, 7, 4, 3, 1], ([0], [1, 2], [3, 4, 5]), id="three"),
    pytest.param([9, 16, 15, 5], ([0, 1, 2], [3], []), id="no short one"),
    pytest.param([3, 16, 2], ([1], [], [0, 2]), id="none between"),
    pytest.param([5, 5], ([0, 1], [], []), id="equal"),
    pytest.param([7, 3, 2, 1], ([0], [1, 2], [3]), id="odd"),
]


@pytest.mark.parametrize(("lengths", "groups"), GROUPS)
def test_texts_in_groups_of_half_and_a_quarter(
    lengths: list[int], groups: tuple[list[int], ...]
) -> None:
    _, packed, _ = forms(FUSED, FIRST)
    assert operators(packed.graph)["Attention"] == 3
    names = ("long", "middle", "short")
    wanted = [f"{name}_texts" for name in names] + ["longest", "middle_width", "short_width"]
    made = {value.name: value for node in packed.graph for value in node.outputs}
    packed.graph.outputs[:] = [made[name] for name in [*wanted, "whole_steps_index"]]
    Editor(packed, "test").drop_unread(*packed.graph)
    arrays = texts(packed, lengths, 16)
    with find_target("ort-cpu").runner(Model(packed), RunnerOptions(exact=True)) as runner:
        found = runner.run(arrays)
    assert [found[name].tolist() for name in wanted[:3]] == list(groups)
    widest = max(lengths)
    assert [int(found[name][0]) for name in wanted[3:]] == [widest, widest // 2, widest // 4]
    rows, tokens = found["whole_steps_index"][0], sum(lengths)
    assert len(rows) == -(-tokens // 16) * 16
    np.testing.assert_array_equal(rows[:tokens], np.flatnonzero(arrays["mask"]))
    assert not rows[tokens:].any()


def test_rows_are_tokens_where_shapes_cost_nothing() -> None:
    packed, _ = made(block_of(FUSED, FIRST), "unpad", "ort-cpu:isa=vnni")
    assert "whole_steps_index" not in {
        value.name for node in packed.graph for value in node.outputs
    }
    blocks = (node for graph in iter_graphs(packed) for node in graph)
    # Attention of one text, of long and short ones, and of long ones alone.
    assert sum(node.op_type == "Attention" for node in blocks) == 4


@pytest.mark.openvino
@pytest.mark.parametrize(("lengths", "groups"), GROUPS)
@pytest.mark.parametrize("reading", [FIRST, "y = MatMul(hidden, head)"], ids=["first", "every"])
def test_numbers_of_groups(lengths: list[int], groups: tuple[list[int], ...], reading: str) -> None:
    del groups
    before, _, lowered = forms(FUSED, reading)
    options = RunnerOptions(threads=1, exact=True)
    start = find_target("openvino-cpu").runner
    arrays = texts(before, lengths, 16)
    with start(Model(before), options) as first, start(Model(lowered), options) as second:
        expected, found = (runner.run(arrays)["y"] for runner in (first, second))
    if reading != FIRST:
        expected = np.where(arrays["mask"][..., None], expected, 0)
    assert decibels(expected, found) >= 110


@pytest.mark.openvino
def test_layers_of_padded_texts_are_counted_and_timed() -> None:
    _, packed, lowered = forms(FUSED, FIRST)
    target, options = find_target("openvino-cpu"), RunnerOptions(threads=1)
    with target.runner(Model(packed), options) as one, target.runner(Model(lowered)) as two:
        assert one.kernels() == two.kernels()
    form = form_of_padding(Model(lowered))
    assert form is not None
    assert operators(form.ir.graph) == operators(packed.graph)
    assert form_of_padding(Model(packed)) is None


def test_no_branch_without_unpad() -> None:
    model = block_of(FUSED, FIRST)
    assert not lower(model, find_target("openvino-cpu:isa=vnni").capabilities)
    assert all(node.op_type != "If" for node in model.graph)


@pytest.mark.parametrize("why", ["cache", "subgraph", "other operators"])
def test_no_branch_where_an_importer_needs_more(why: str) -> None:
    packed, _ = made(block_of(FUSED, FIRST), "unpad", "openvino-cpu:isa=vnni")
    if why == "cache":
        packed.graph.inputs[0].name = "past_key_values.0.key"
    elif why == "subgraph":
        packed, _ = made(block_of(FUSED, FIRST), "unpad", "ort-cpu:isa=vnni")
    else:
        next(node for node in packed.graph if node.op_type == "Gelu").domain = "com.microsoft"
    assert "padding-choice" not in lower(packed, find_target("openvino-cpu").capabilities)


def test_what_takes_the_place_of_a_node_loses_the_note() -> None:
    packed, _ = made(block_of(WRITTEN, FIRST), "unpad")
    node = next(node for node in packed.graph if one_text(node) is not None)
    new = Editor(packed, "test").replace(node, "Identity", [node.inputs[0]])
    assert one_text(new) is None
