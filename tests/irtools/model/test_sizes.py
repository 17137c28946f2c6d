"""Numbers for open sizes: by name, by place, and what cannot be fixed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools import optimize
from irtools.data import SyntheticSettings, draw_feeds
from irtools.errors import UsageError
from irtools.model import Model, with_sizes
from irtools.sources import LoadOptions, load_source
from irtools.targets import RunnerOptions, find_target

TEXT = """
<ir_version: 10, opset_import: ["" : 17]>
agraph (float[batch, sequence, 4] x, float[batch, ?] mask) => (float[batch, sequence, 3] y)
<float[4, 3] w = {1,2,3,4,5,6,7,8,9,10,11,12}, int64[1] last = {-1}>
{
    masked = Unsqueeze (mask, last)
    same = Identity (x)
    kept = Mul (same, masked)
    h = MatMul (kept, w)
    y = Relu (h)
}
"""


def make() -> Model:
    model = ir.from_onnx_text(TEXT)
    doubled = next(node for node in model.graph if node.op_type == "MatMul").outputs[0]
    doubled.shape = ir.Shape(["batch", "sequence + batch_size - sub_batch", 3])
    doubled.type = ir.TensorType(ir.DataType.FLOAT)
    return Model(model)


def shapes(model: Model) -> dict[str, list[int | str | None]]:
    graph = model.ir.graph
    values = [*graph.inputs, *(v for node in graph for v in node.outputs)]
    return {
        v.name or "": [d if isinstance(d, int) else d.value for d in v.shape]
        for v in values
        if v.shape is not None
    }


def test_a_name_is_fixed_wherever_it_occurs_and_the_source_stays() -> None:
    model = make()
    found = shapes(with_sizes(model, {"batch": 2, "sequence": 5}))
    assert found["x"] == [2, 5, 4] and found["y"] == [2, 5, 3]
    assert found["mask"] == [2, None]
    assert found["h"] == [2, None, 3]
    assert shapes(model)["x"] == ["batch", "sequence", 4]


def test_names_that_only_begin_or_end_alike_stay() -> None:
    found = shapes(with_sizes(make(), {"batch": 2}))
    assert found["h"] == [2, "sequence + batch_size - sub_batch", 3]


def test_an_axis_without_a_name_is_fixed_by_its_place() -> None:
    assert shapes(with_sizes(make(), {"mask.1": 5}))["mask"] == ["batch", 5]


def test_a_named_axis_by_its_place_is_fixed_everywhere() -> None:
    found = shapes(with_sizes(make(), {"x.1": 5}))
    assert found["x"] == ["batch", 5, 4] and found["y"] == ["batch", 5, 3]


def test_the_fixed_model_computes_the_same() -> None:
    model = make()
    fixed = with_sizes(model, {"batch": 2, "sequence": 5, "mask.1": 5})
    feeds = draw_feeds(fixed, SyntheticSettings(samples=2))
    found = []
    for one in (model, fixed):
        with find_target("ort-cpu").runner(one, RunnerOptions(exact=True)) as runner:
            found.append(runner.run(feeds)["y"])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"seq": 5}, "size seq=5: no input has such an axis; named ones are batch, sequence"),
        ({"x.3": 5}, "size x.3=5: no input has such an axis"),
        ({"x.2": 5}, "size x.2=5: the model has fixed it to 4"),
        ({"batch": 0}, "size batch=0: expected 1 or more"),
        ({"batch": 1, "x.0": 2}, "sizes batch=1 and x.0=2 name one axis"),
        ({"x.0": 1, "mask.0": 2}, "sizes x.0=1 and mask.0=2 name one axis"),
    ],
)
def test_what_cannot_be_fixed(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        with_sizes(make(), sizes)


def test_one_axis_may_be_named_twice_with_one_size() -> None:
    assert shapes(with_sizes(make(), {"batch": 2, "x.0": 2, "mask.0": 2}))["x"][0] == 2


def test_any_source_can_be_fixed(tmp_path) -> None:
    make().save(tmp_path / "model.onnx")
    model = load_source(str(tmp_path / "model.onnx"), LoadOptions(sizes=(("batch", 1),)))
    assert shapes(model)["x"] == [1, "sequence", 4]


def test_a_batch_of_one_goes_through_optimize() -> None:
    """Feeds of every check and of the benchmark keep to the number that the model insists on."""
    fixed = with_sizes(make(), {"batch": 1, "sequence": 5, "mask.1": 5})
    result = optimize(fixed, "cleanup", bench=None)
    assert "numerics" in result.report.rows[-1].checks
    assert shapes(result.model)["x"] == [1, 5, 4]
