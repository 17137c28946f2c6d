from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from irtools.backends.onnxruntime import session
from irtools.backends.onnxruntime.artifact import write_artifact
from irtools.backends.onnxruntime.session import Provider, open_session
from irtools.backends.onnxruntime.source import ModelSource
from irtools.backends.onnxruntime.target import OrtCpu, OrtCuda, OrtTensorRt
from irtools.errors import (
    FileError,
    LimitError,
    OptionError,
    TargetUnavailableError,
    UnsupportedError,
)
from irtools.model import Model
from irtools.targets import Isa, RunnerOptions, find_target

_HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()


def _matmul(dtype: ir.DataType = ir.DataType.FLOAT, size: int = 300) -> Model:
    weight = np.random.default_rng(0).standard_normal((size, size), np.float32)
    w = ir.val("w", const_value=ir.tensor(weight.astype(dtype.numpy()), name="w"))
    x = ir.val("x", ir.DataType.FLOAT, ["batch", size])
    cast = ir.node("Cast", [w], {"to": ir.DataType.FLOAT.value})
    node = ir.node("MatMul", [x, cast.outputs[0]])
    node.outputs[0].name, node.outputs[0].dtype = "y", ir.DataType.FLOAT
    node.outputs[0].shape = ir.Shape(["batch", size])
    nodes = [cast, node]
    graph = ir.Graph([x], node.outputs, nodes=nodes, initializers=[w], opset_imports={"": 20})
    return Model(ir.Model(graph, ir_version=10))


@pytest.mark.skipif(_HAS_CUDA, reason="this machine has what the errors are about")
@pytest.mark.parametrize("name", ["ort-cuda", "ort-tensorrt"])
def test_absent_devices_say_what_to_install(name: str) -> None:
    with pytest.raises(TargetUnavailableError, match=r"pip install onnxruntime-gpu"):
        find_target(name)
    with pytest.raises(TargetUnavailableError, match=r"pip install onnxruntime-gpu"):
        find_target(name, check=False).runner(_matmul())


def test_a_provider_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnlyCpu:
        def __init__(self, *_: object, **options: object) -> None:
            assert options["enable_fallback"] == 0

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(session.ort, "InferenceSession", OnlyCpu)
    with pytest.raises(TargetUnavailableError, match="would run on CPUExecutionProvider instead"):
        open_session(ModelSource.of(_matmul()), RunnerOptions(), OrtCuda().providers())


def test_capabilities_follow_the_instruction_set() -> None:
    assert OrtCpu(Isa.AVX2).capabilities.saturates_u8s8
    assert not OrtCpu(Isa.VNNI).capabilities.saturates_u8s8
    assert not OrtCpu(Isa.ARM).capabilities.saturates_u8s8
    assert not OrtCpu().capabilities.runs_fused("SkipLayerNormalization", "com.microsoft")
    assert OrtTensorRt().capabilities.int8_activation == "s8-symmetric"
    assert "float16" in OrtCuda().capabilities.compute_dtypes


def test_providers_are_named_in_order() -> None:
    assert [p.name for p in OrtCpu().providers()] == ["CPUExecutionProvider"]
    assert [p.name for p in OrtTensorRt().providers()] == [
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ]


def test_version() -> None:
    assert OrtCpu().version() == f"onnxruntime {ort.__version__}"


def test_an_artifact_runs_and_keeps_its_interface(tmp_path: Path) -> None:
    model = _matmul()
    artifact = OrtCpu().compile(model, tmp_path / "new", "net")
    assert artifact.files == (tmp_path / "new" / "net.onnx",)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["net.onnx"]
    assert artifact.kernels.counts == {"MatMul": 1}
    stored = onnx.load(artifact.files[0])
    assert stored.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert stored.ir_version == 10
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 300), np.float32)}
    with OrtCpu().runner(artifact.files[0]) as compiled, OrtCpu().runner(model) as plain:
        np.testing.assert_array_equal(compiled.run(feeds)["y"], plain.run(feeds)["y"])


def test_weights_of_an_artifact_are_in_a_file_that_the_runtime_maps(tmp_path: Path) -> None:
    model = _matmul(size=600)
    path, weights = OrtCpu().compile(model, tmp_path, "net").files
    assert (path.name, weights.name) == ("net.onnx", "net.onnx.data")
    assert path.stat().st_size < 10_000 < 4 * 600 * 600 <= weights.stat().st_size
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 600), np.float32)}
    with OrtCpu().runner(path) as compiled, OrtCpu().runner(model) as plain:
        np.testing.assert_array_equal(compiled.run(feeds)["y"], plain.run(feeds)["y"])


def test_the_runtimes_own_format_holds_the_weights_and_the_kernels(tmp_path: Path) -> None:
    model = _matmul()
    artifact = OrtCpu().compile(model, tmp_path, "net", format="ort")
    (path,) = artifact.files
    assert path == tmp_path / "net.ort" and path.read_bytes()[4:8] == b"ORTM"
    assert path.stat().st_size > 4 * 300 * 300 and artifact.kernels.counts == {"MatMul": 1}
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 300), np.float32)}
    with OrtCpu().runner(path) as compiled, OrtCpu().runner(model) as plain:
        np.testing.assert_array_equal(compiled.run(feeds)["y"], plain.run(feeds)["y"])
        assert [(s.name, s.shape) for s in compiled.slots] == [("x", (None, 300))]
        assert compiled.kernels().counts == {"MatMul": 1}


def test_formats_that_a_target_does_not_write(tmp_path: Path) -> None:
    for target, format in ((OrtCpu(), "xml"), (OrtTensorRt(), "ort")):
        with pytest.raises(OptionError, match=f"writes no .{format}, only .onnx"):
            target.compile(_matmul(), tmp_path, "net", format=format)


def test_the_runtimes_own_format_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irtools.backends.onnxruntime.artifact._ORT_FORMAT_UP_TO", 1000)
    with pytest.raises(LimitError, match=r"write \.onnx"):
        OrtCpu().compile(_matmul(), tmp_path, "net", format="ort")
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_of_a_small_model_keeps_weights_of_8_bits(tmp_path: Path) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1,64,9] x, int8[64,64,3] q, '
        "float[64,1,1] s) => (float[1,64,7] y) { i = Cast<to=1>(q) w = Mul(i, s) y = Conv(x, w) }"
    )
    for name, array in {
        "q": np.ones((64, 64, 3), np.int8),
        "s": np.ones((64, 1, 1), np.float32),
    }.items():
        (value,) = (v for v in model.graph.inputs if v.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.Tensor(array, name=name)
        model.graph.register_initializer(value)
    artifact = OrtCpu().compile(Model(model), tmp_path, "net")
    assert artifact.files[0].stat().st_size < 1.2 * 64 * 64 * 3
    assert "would unpack its weights" in artifact.notes[0]


def test_an_artifact_does_not_unpack_small_weights(tmp_path: Path) -> None:
    model = _matmul(ir.DataType.FLOAT16, size=1200)
    artifact = OrtCpu().compile(model, tmp_path, "net")
    assert artifact.files[0].stat().st_size < 1.1 * 2 * 1200 * 1200
    assert artifact.notes == (
        "stored as it is: the runtime's own optimization would unpack its weights",
    )
    own = OrtCpu().compile(model, tmp_path, "net", format="ort")
    assert own.files[0].stat().st_size < 1.1 * 2 * 1200 * 1200 and own.notes == artifact.notes


def test_compiling_leaves_the_model_alone(tmp_path: Path) -> None:
    model = _matmul()
    before = model.text()
    OrtCpu().compile(model, tmp_path, "net")
    assert model.text() == before


def test_a_refused_model_leaves_the_old_artifact(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("old")
    model = Model(
        ir.from_onnx_text(
            '<ir_version: 10, opset_import: ["" : 20, "acme" : 1]>'
            "m (float[2] x) => (float[2] y) { y = acme.Wish(x) }"
        )
    )
    with pytest.raises(UnsupportedError, match="Wish"):
        OrtCpu().compile(model, tmp_path, "net")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    assert (tmp_path / "net.onnx").read_text() == "old"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write to folder"):
        OrtCpu().compile(_matmul(), tmp_path / "file" / "out", "net")


def test_a_portable_artifact_is_the_lowered_model(tmp_path: Path) -> None:
    artifact = write_artifact(
        _matmul(), tmp_path / "net.onnx", (Provider("CPUExecutionProvider"),), optimize=False
    )
    nodes = [node.op_type for node in onnx.load(artifact.files[0]).graph.node]
    assert nodes == ["Cast", "MatMul"]


def test_no_telemetry(tmp_path: Path) -> None:
    """What the runtime writes on import where its reporting client starts is not there."""
    code = (
        "import os\n"
        "from irtools.backends.onnxruntime.session import ort\n"
        "assert 'ORT_DISABLE_TELEMETRY' not in os.environ\n"
        "print(ort.__version__)"
    )
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", code], env={**env, "TMPDIR": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []
