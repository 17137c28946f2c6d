"""What is said of models that saturate on a target."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from irtools.measure.figures import Level
from irtools.report.saturation import remark_on_saturation
from irtools.targets import find_target

_TEXT = """<ir_version: 10, opset_import: ["" : 20]>
g (float[n,2] x) => (int32[n,1] y) <int8[2,1] q = {%d, %d}> {
  a, s, z = DynamicQuantizeLinear(x)  y = MatMulInteger(a, q, z) }"""


def _model(first: int, second: int) -> ir.Model:
    return ir.from_onnx_text(_TEXT % (first, second))


_UNSAFE, _SAFE = _model(127, 2), _model(127, 1)


def test_what_is_said_of_a_model_that_saturates() -> None:
    target = find_target("ort-cpu:isa=avx512", check=False)
    (found,) = remark_on_saturation(_UNSAFE, _UNSAFE, target)
    assert found.level is Level.WARNING
    for part in (
        "1 int8 product of the model may saturate",
        "avx512 has no VNNI",
        "session.x64quantprecision=1",
        "quantize the float model with int8",
    ):
        assert part in found.text
    (found,) = remark_on_saturation(_UNSAFE, _SAFE, target)
    assert found.level is Level.NOTE and "of the original" in found.text
    assert "the original needs the session option session.x64quantprecision=1" in found.text


def test_each_runtime_has_its_own_option() -> None:
    target = find_target("openvino-cpu:isa=avx2", check=False)
    (found,) = remark_on_saturation(_UNSAFE, _UNSAFE, target)
    assert found.level is Level.WARNING and "session" not in found.text
    assert "set the property LP_TRANSFORMS_MODE=NO where the file is loaded" in found.text


@pytest.mark.parametrize("isa", ["vnni", "amx", "arm", "arm-dot"])
def test_nothing_is_said_where_sums_are_exact(isa: str) -> None:
    target = find_target(f"ort-cpu:isa={isa}", check=False)
    assert list(remark_on_saturation(_UNSAFE, _UNSAFE, target)) == []
    avx2 = find_target("ort-cpu:isa=avx2", check=False)
    assert list(remark_on_saturation(_SAFE, _SAFE, avx2)) == []
