"""One block of a model before and after: which is chosen, and what became of its nodes."""

from __future__ import annotations

import onnx_ir as ir

from irtools.analysis.block import MOST_NODES, find_block
from irtools.analysis.block_pair import BlockNode
from irtools.editing import REPLACED


def _model(layers: int, names: tuple[str, ...], text: str, module: str = "net.layer") -> ir.Model:
    """A chain of layers; in `text` {x} goes in, {y} comes out, and {n} is the layer."""
    lines = []
    for n in range(layers):
        lines.append(text.format(x=f"v{n}", y=f"v{n + 1}", n=n))
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N,2] v0) => '
        f"(float[N,2] v{layers}) <float[2,2] w = {{1,2,3,4}}, float[2] b = {{1,2}}> "
        f"{{ {' '.join(lines)} }}"
    )
    for number, node in enumerate(model.graph):
        layer, place = divmod(number, len(names))
        node.name = f"{module}.{layer}.{names[place]}/{node.op_type}"
    return model


_FLOAT = "m{n} = MatMul({x}, w)  a{n} = Add(m{n}, b)  {y} = Relu(a{n})"
_NAMES = ("up", "up", "act")


def test_a_layer_shows_what_became_of_each_node() -> None:
    before = _model(3, _NAMES, _FLOAT)
    after = _model(3, ("up", "act"), "a{n} = Gemm({x}, w, b)  {y} = Relu(a{n})")
    for n in range(3):
        after.graph[2 * n].metadata_props[REPLACED] = f"net.layer.{n}.up/MatMul"
    found = find_block(before, after)
    assert found is not None and (found.module, found.alike) == ("net.layer.0", 3)
    weights = "float32 2x2"
    assert found.before == (
        BlockNode("MatMul", "net.layer.0.up/MatMul", weights, (), "gone"),
        BlockNode("Add", "net.layer.0.up/Add", "float32 2", (0,), "gone"),
        BlockNode("Relu", "net.layer.0.act/Relu", "", (1,), "same"),
    )
    gemm, relu = found.after
    assert (gemm.op, gemm.change, gemm.weights) == ("Gemm", "new", f"{weights}, float32 2")
    assert (relu.op, relu.change, relu.inputs) == ("Relu", "same", (0,))


def test_other_weights_are_a_change_of_the_same_node() -> None:
    before, after = _model(2, _NAMES, _FLOAT), _model(2, _NAMES, _FLOAT)
    weight = after.graph.initializers["w"]
    weight.const_value = ir.tensor(weight.const_value.numpy()[:, :1].repeat(2, 1).astype("float16"))  # type: ignore[union-attr]
    found = find_block(before, after)
    assert found is not None
    assert [one.change for one in found.before] == ["changed", "same", "same"]
    assert found.after[0].weights == "float16 2x2"


def test_the_member_that_most_look_like_is_drawn() -> None:
    before = _model(4, _NAMES, _FLOAT)
    after = _model(4, _NAMES, _FLOAT)
    after.graph[0].op_type = "Gemm"  # The first layer alone.
    found = find_block(before, after)
    assert found is not None and (found.module, found.alike) == ("net.layer.1", 3)


def test_a_list_of_large_members_gives_way_to_one_within_it() -> None:
    text = " ".join(
        f"t{{n}}_{k} = Relu({'{x}' if not k else f't{{n}}_{k - 1}'})" for k in range(MOST_NODES)
    )
    names = (*(f"block.{k // 10}.act" for k in range(MOST_NODES)), "last")
    model = _model(2, names, f"{text} {{y}} = Relu(t{{n}}_{MOST_NODES - 1})")
    found = find_block(model, model.clone())
    assert found is not None and found.module == "net.layer.0.block.0"
    assert (len(found.before), found.alike) == (10, 9)


def test_a_model_without_lists_is_drawn_whole_or_not_at_all() -> None:
    small = _model(2, _NAMES, _FLOAT)
    large = _model(MOST_NODES, _NAMES, _FLOAT)
    for model in (small, large):
        for node in model.graph:
            node.name = ""
    found = find_block(small, small.clone())
    assert found is not None and (found.module, found.alike) == ("", 1)
    assert len(found.before) == 6 and {one.change for one in found.after} == {"same"}
    assert find_block(large, large.clone()) is None
