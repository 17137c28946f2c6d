"""What all forms keep to, how plans name them, and what a target's table changes."""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import irtools.passes.quantization as family
from irtools.backends.onnxruntime.target import OrtCpu
from irtools.data import Dataset
from irtools.errors import UsageError
from irtools.model.printer import print_model
from irtools.passes.quantization.forms.base import Form, WeightDecision
from irtools.passes.quantization.forms.blocks import BlockProduct
from irtools.passes.quantization.forms.registry import (
    counters_of,
    find_form,
    forms_of,
    read_decision,
)
from irtools.passes.quantization.forms.stored import StoredForm
from irtools.passes.quantization.forms.weights import WeightForm
from irtools.passes.quantization.int4 import Int4
from irtools.passes.quantization.int8 import Int8
from irtools.passmanager import Decision, PassContext, Pipeline
from irtools.plugins import registry
from irtools.targets import Capabilities

from .conftest import build, context

FORMS = forms_of(Form)  # type: ignore[type-abstract]
HEAD = '<ir_version: 8, opset_import: ["" : 17]> '
ROOMS = ("sites", "ranges", "write", "forms")


@pytest.mark.parametrize("name", FORMS)
def test_a_form_describes_itself(name: str) -> None:
    form = FORMS[name]
    assert form.name == name
    assert form.__doc__ and form.counters and all(form.counters.values())
    assert issubclass(form, WeightForm | StoredForm)
    made = WeightDecision("w", form(), ())
    again = json.loads(json.dumps(made.to_data()))
    read = read_decision(Decision("w", "", data=again))
    assert (read.form, read.key, read.to_data()) == (form(), ("", "w"), made.to_data())
    assert form().opset in {0, *range(7, 27)}


def test_what_a_user_chooses_among_follows_from_the_forms() -> None:
    assert set(forms_of(BlockProduct)) >= {"int4", "nf4"}  # type: ignore[type-abstract]
    with pytest.raises(UsageError, match=r"'format' of pass 'int4' is 'int5', expected int4\|nf4"):
        Pipeline("int4:format=int5")
    with pytest.raises(UsageError, match=r"format is 'int5', expected int4\|nf4"):
        Int4(format="int5")


def test_a_form_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Foreign(find_form("s8")):  # type: ignore[misc]
        name = "foreign"

    find_form.cache_clear()
    monkeypatch.setattr(registry, "names", lambda group: ("foreign",))
    monkeypatch.setattr(registry, "load", lambda group, name: Foreign)
    assert forms_of(StoredForm)["foreign"] is Foreign  # type: ignore[type-abstract]
    made = WeightDecision("w", Foreign((1,)), ())
    assert read_decision(Decision("w", "", data=made.to_data())).form == Foreign((1,))
    find_form.cache_clear()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "int5"}, "there is no quantized form 'int5'"),
        ({"axes": None, "scope": 3, "uses": 1}, "not iterable"),
        ({}, "KeyError"),
    ],
)
def test_a_decision_that_is_none_of_ours_is_refused(change: dict[str, Any], message: str) -> None:
    data = {**WeightDecision("w", find_form("s8")(), ()).to_data(), **change} if change else {}
    with pytest.raises(UsageError, match=message) as error:
        read_decision(Decision("w", "", data=data))
    assert "the decision about 'w'" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("made", [Int8, Int4])
def test_counters_of_a_pass_follow_from_forms_and_reasons(made: type[Int8 | Int4]) -> None:
    assert set(made.counters) >= {"num-already-quantized", "num-skipped-nonfinite"}
    assert all(phrase and "{" not in phrase for phrase in made.counters.values())


def test_the_first_form_that_counts_something_says_what_it_is() -> None:
    first, second = find_form("static"), find_form("int4")
    counters = counters_of((first, second), ())
    assert counters["num-quantized-matmul"] == first.counters["num-quantized-matmul"]
    assert list(counters)[-1].startswith("num-skipped-")


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """Yield file and imported room of every import of the family."""
    for path in (Path(family.__path__[0]) / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = node.module.split(".")
                if parts[:3] == ["irtools", "passes", "quantization"]:
                    yield path.name, parts[3]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_rooms_before_them(room: str) -> None:
    allowed = ROOMS[: ROOMS.index(room) + 1]
    assert not [f"{name} imports {other}" for name, other in imports(room) if other not in allowed]


def test_rooms_name_no_runtime() -> None:
    """What a runtime does is in the tables of the backends."""
    wrong = [
        f"{path.name}: {word}"
        for path in Path(family.__path__[0]).rglob("*.py")
        for word in ("ONNX Runtime", "OpenVINO", "onnxruntime", "TensorRT")
        if path.parent.name in ROOMS and word in path.read_text(encoding="utf-8")
    ]
    assert not wrong


def on(changed: dict[str, Any], data: Dataset | None = None) -> PassContext:
    """A context of a target whose table differs in some fields from that of ORT."""

    class Changed(OrtCpu):
        @property
        def capabilities(self) -> Capabilities:
            return dataclasses.replace(super().capabilities, **changed)

    ctx = context("ort-cpu:isa=avx2", data)
    ctx.target = Changed(isa=ctx.target.isa)
    return ctx


def applied(model: ir.Model, text: str, ctx: PassContext) -> tuple[ir.Model, Any]:
    (pass_,) = Pipeline(text)
    after = model.clone()
    result = pass_.run(after, ctx)
    return after, result


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("hides", [True, False])
def test_integers_are_hidden_for_targets_that_may_misread_them(hides: bool) -> None:
    model = build(
        HEAD + "g (float[5,6] w, int64[2] i) => (float[5,2] y) { y = Gather<axis=1>(w, i) }"
    )
    after, _ = applied(model, "int8:min-size=0", on({"hides_stored_integers": hides}))
    assert ("Cast<to=6>(w_quantized)" in print_model(after)) == hides


@pytest.mark.parametrize("clips", [frozenset({"Relu"}), frozenset()])
def test_a_range_is_that_of_what_the_target_takes_into_it(clips: frozenset[str]) -> None:
    model = build(
        HEAD + "g (float[b,3,6,6] x, float[4,3,3,3] w, float[4,4,1,1] w2) => (float[b,4,4,4] y) "
        "{ c = Conv(x, w) r = Relu(c) y = Conv(r, w2) }"
    )
    ctx = on({"int8_clips": clips}, Dataset({"x": normal(8, 3, 6, 6)}))
    after, _ = applied(model, "int8:mode=static:min-size=0", ctx)
    quantized = {node.inputs[0].name for node in after.graph if node.op_type == "QuantizeLinear"}
    assert ("c" in quantized) == (not clips)
    assert "r" in quantized


@pytest.mark.parametrize("fuses", [True, False])
def test_a_bias_is_an_integer_where_the_target_makes_a_gemm(fuses: bool) -> None:
    model = build(
        HEAD + "g (float[4,8] x, float[8,6] w, float[6] w_b) => (float[4,6] y) "
        "{ m = MatMul(x, w) y = Add(m, w_b) }"
    )
    ctx = on({"int8_fuses_add": fuses}, Dataset({"x": normal(4, 8)}, fixed_batch=4))
    after, _ = applied(model, "int8:mode=static:min-size=0", ctx)
    (add,) = (node for node in after.graph if node.op_type == "Add")
    producer = add.inputs[1].producer()
    assert (producer is not None and producer.op_type == "DequantizeLinear") == fuses


@pytest.mark.parametrize("written", [True, False])
def test_zero_points_are_written_for_targets_that_need_them(written: bool) -> None:
    model = build(HEAD + "g (float[n,8] x, float[8,6] w) => (float[n,6] y) { y = Gemm(x, w) }")
    ctx = on({"int8_zero_points": written}, Dataset({"x": normal(4, 8)}))
    after, _ = applied(model, "int8:mode=static:min-size=0", ctx)
    assert ("w_zero_point" in after.graph.initializers) == written


@pytest.mark.parametrize("vectors", [True, False])
def test_vectors_are_multiplied_in_integers_where_the_target_keeps_their_shape(
    vectors: bool, outputs
) -> None:
    model = build(HEAD + "g (float[8] x, float[8,16] w) => (float[16] y) { y = MatMul(x, w) }")
    ctx = on({"int8_vectors": vectors})
    after, result = applied(model, "int8:mode=dynamic:min-size=0", ctx)
    kind = "num-quantized-matmul" if vectors else "num-stored-other"
    assert result.counters == {kind: 1}
    x = normal(8)
    found = outputs(after, x=x)
    assert found.shape == (16,)
    np.testing.assert_allclose(found, outputs(model, x=x), atol=0.1)


def test_a_type_that_the_target_does_not_expand_is_left_alone_and_counted() -> None:
    model = build(HEAD + "g (float[1,3,9] x, float[4,3,3] w) => (float[1,4,7] y) {y = Conv(x, w)}")
    after, result = applied(model, "int8:min-size=0", on({"stored_types": frozenset()}))
    assert not result.modified and print_model(after) == print_model(model)
    assert result.counters == {"num-skipped-target": 1}
    assert "the target is not known to run their form (1)" in result.notes[0]
