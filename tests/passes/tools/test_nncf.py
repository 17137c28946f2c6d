"""The passes `nncf` and `nncf-weights`."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from irtools.data import Dataset, synthesize
from irtools.errors import DataError, MissingExtraError, UnsupportedError, UsageError
from irtools.model import Model
from irtools.passes.tools.nncf_library import nncf_library
from irtools.passmanager import PassContext, Pipeline
from irtools.targets import RunnerOptions
from irtools.testing import TINY_MODELS, read_model

from .test_ort import applied, scale_of, sqnr, text_model, texts

OFFLINE = Path(__file__).parents[2] / "offline.py"
needs_nncf = pytest.mark.nncf


@needs_nncf
def test_ranges_do_not_count_padding() -> None:
    after, result = applied("nncf", text_model(), texts(3, 8, 5, 8))
    assert result.counters["num-quantized-weights"] >= 1
    assert 0 < scale_of(after, "scaled") < 4.5 / 255


@needs_nncf
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_outputs_are_close_and_callers_see_the_same(name: str) -> None:
    model = TINY_MODELS[name]()
    model.ir.metadata_props["author"] = "A. Author"
    data = synthesize(model)
    after, result = applied("nncf:preset=mixed", model, data)
    assert result.modified and sqnr(model, after, data) > 20
    assert after.interface == model.interface
    made = [n for n in after.ir.graph if n.op_type == "QuantizeLinear"]
    assert {n.metadata_props["pkg.irtools.rule"] for n in made} == {"nncf"}


@needs_nncf
def test_presets_and_scopes_reach_the_tool() -> None:
    model = TINY_MODELS["mlp"]()

    def zero_points(text: str) -> set[int]:
        found = applied(text, model)[0].ir.graph
        points = [n.inputs[2].const_value for n in found if n.op_type == "QuantizeLinear"]
        return {int(point.numpy()) for point in points}

    assert zero_points("nncf:preset=performance") == {0}
    assert len(zero_points("nncf:preset=mixed")) == 2
    _, result = applied("nncf:ignored_scope=product", model)
    assert result.counters["num-quantized-weights"] == 1
    with pytest.raises(UsageError, match="ignored-scope is 'x', which no node is called"):
        applied("nncf:ignored_scope=x", model)


@needs_nncf
@pytest.mark.parametrize(
    ("options", "dtype", "floor"),
    [
        ("", "UINT8", 35),
        (":mode=int8_sym", "INT8", 35),
        (":mode=int4_asym:group_size=16:all_layers=true", "UINT4", 15),
        (":mode=int4_sym:group_size=16:all_layers=true:scale_estimation=true", "INT4", 14),
    ],
)
def test_weights(options: str, dtype: str, floor: float) -> None:
    model = TINY_MODELS["mlp"]()
    data = replace(synthesize(model), synthetic=False)
    after, result = applied(f"nncf-weights{options}", model, data)
    found = {v.dtype.name for n, v in after.ir.graph.initializers.items() if "quantized" in n}
    assert found == {dtype}
    assert result.counters == {"num-quantized-weights": 2, "num-quantized-activations": 0}
    assert sqnr(model, after, data) > floor
    raised = ("opset raised from 20 to 21",) if "4" in dtype else ()
    assert result.notes == raised


@needs_nncf
def test_conv_weights_stay() -> None:
    model = TINY_MODELS["convnet"]()
    data = synthesize(model)
    after, result = applied("nncf-weights", model, data)
    assert result.counters["num-quantized-weights"] == 1
    assert sqnr(model, after, data) > 35


@needs_nncf
def test_a_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import nncf

    def fail(*arguments: object, **options: object) -> None:
        raise nncf.ValidationError("It is so.\nAnd more.")

    monkeypatch.setattr(nncf, "compress_weights", fail)
    with pytest.raises(UnsupportedError, match=r"failed: ValidationError: It is so.$"):
        applied("nncf-weights", TINY_MODELS["mlp"]())


@needs_nncf
def test_two_runs_make_one_model() -> None:
    model = TINY_MODELS["mlp"]()
    first, second = (applied("nncf", model)[0] for _ in range(2))
    assert first.fingerprint() == second.fingerprint()


@needs_nncf
@pytest.mark.parametrize("text", ["nncf", "nncf-weights"])
def test_nothing_is_sent(text: str, tmp_path: Path) -> None:
    """In a process of its own: NNCF turns its telemetry off where it sees pytest."""
    TINY_MODELS["mlp"]().save(tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=synthesize(TINY_MODELS["mlp"]()).feeds["x"])
    log, home = tmp_path / "attempts", tmp_path / "home"
    home.mkdir()
    call = ["optimize", "model.onnx", "--passes", text, "--calibrate", "x.npz", "--no-bench"]
    done = subprocess.run(
        [sys.executable, str(OFFLINE), str(log), "irtools.cli.main", *call],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "" and not log.exists()
    assert not (home / "intel").exists(), "it wrote who its user is"


@needs_nncf
def test_telemetry_is_off_where_a_caller_imported_it_before() -> None:
    from nncf.telemetry import decorator

    sent: list[object] = []

    class Sender:
        def __getattr__(self, name: str) -> object:
            return lambda *arguments, **options: sent.append(name)

    before, decorator.telemetry = decorator.telemetry, Sender()
    try:
        applied("nncf-weights", TINY_MODELS["mlp"]())
        assert not sent
        assert isinstance(decorator.telemetry, Sender)
    finally:
        decorator.telemetry = before


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'irtools-compiler\[nncf\]'"):
        applied("nncf", TINY_MODELS["mlp"]())
    before = sys.modules.get("openvino_telemetry")
    with pytest.raises(MissingExtraError), nncf_library():
        pass
    assert sys.modules.get("openvino_telemetry") is before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nncf:preset=fast", "is 'fast', expected performance|mixed or none"),
        ("nncf:target_device=tpu", "is 'tpu', expected any|cpu|gpu|npu"),
        ("nncf:subset_size=0", "subset-size is 0, expected 1 or more"),
        ("nncf-weights:mode=nf4", "is 'nf4', expected int8_asym|int8_sym|int4_asym|int4_sym"),
        ("nncf-weights:group_size=64", "group-size needs mode=int4_asym or int4_sym, the mode is"),
        ("nncf-weights:mode=int4_sym:ratio=2", "ratio is 2, expected 0 to 1"),
        ("nncf-weights:mode=int4_sym:group_size=0", "group-size is 0, expected 1 or more, or -1"),
    ],
)
def test_wrong_options_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        Pipeline.parse(text)
    assert said in str(error.value)


def two_products() -> Model:
    weights = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16)).astype(np.float32)
    weights[0, 0] = 0  # What the large channel holds is lost on purpose.
    return read_model(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        two (float[batch, 16] x, float[16, 16] w, float[16, 16] v) => (float[batch, 16] logits) {
          h = MatMul (x, w)  a = Tanh (h)  logits = MatMul (a, v)
        }
        """,
        {"w": weights[0], "v": weights[1]},
    )


def labelled(model: Model, large: float) -> Dataset:
    """Samples with the class that the model says, and one channel that takes the range away."""
    x = np.random.default_rng(1).uniform(-1, 1, (64, 16)).astype(np.float32)
    x[:, 0] *= large
    ctx = PassContext.for_model(model, "ort-cpu:isa=vnni", threads=1)
    with ctx.runner(model.ir, RunnerOptions(exact=True)) as runner:
        labels = runner.run({"x": x})["logits"].argmax(axis=1)
    return Dataset({"x": x}, labels=labels)


def quantized_products(text: str, large: float) -> set[str]:
    model = two_products()
    data = labelled(model, large)
    (found,) = Pipeline.parse(text)
    ctx = PassContext.for_model(
        model, "ort-cpu:isa=vnni", calibration=data, evaluation=data, threads=1
    )
    found.run(model.ir, ctx)
    quantized = {n.outputs[0] for n in model.ir.graph if n.op_type == "DequantizeLinear"}
    products = [n for n in model.ir.graph if n.op_type == "MatMul"]
    return {n.outputs[0].name for n in products if n.inputs[0] in quantized}


@needs_nncf
def test_accuracy_control_gives_back_the_layer_that_hurts() -> None:
    assert quantized_products("nncf:max-drop=0.05", 1000) == {"logits"}
    assert quantized_products("nncf:max-drop=0.05", 1) == {"h", "logits"}
    assert quantized_products("nncf:max-drop=1:drop-type=relative", 1000) == {"h", "logits"}


@needs_nncf
def test_accuracy_control_needs_labels() -> None:
    model = two_products()
    with pytest.raises(DataError, match="give labelled evaluation data"):
        applied("nncf:max-drop=0.01", model)
    with pytest.raises(UsageError, match="drop-type needs max-drop"):
        Pipeline.parse("nncf:drop-type=relative")
    with pytest.raises(UsageError, match="max-drop is -1, expected 0 or more"):
        Pipeline.parse("nncf:max-drop=-1")
