"""What a child process loads to run a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from irtools.model import Model
from irtools.targets import find_target

_RUN = """
import sys
from pathlib import Path
import numpy as np
from irtools.measure.{module} import {function}
from irtools.targets import RunnerOptions, find_target
target, path = find_target("ort-cpu:isa=avx2"), Path(sys.argv[1])
feeds = [{{"x": np.ones((2, 4), np.float32)}}]
{call}
print([name for name in ("onnx", "onnx_ir", "sympy") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import onnx_ir as ir

    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N,4] x) => (float[N,4] y) '
        "<float[4] w = {1, 2, 3, 4}> { y = Mul(x, w) }"
    )
    return Model(model).save(tmp_path_factory.mktemp("jobs") / "m.onnx").files[0]


@pytest.mark.parametrize(
    ("module", "function", "call"),
    [
        ("jobs", "run_several", "run_several(path, target, RunnerOptions(), feeds)"),
        ("jobs", "run_several", "run_several(path, 'ort-cpu:isa=avx2', RunnerOptions(), feeds)"),
        (
            "trial",
            "run_trial",
            "run_trial(target, path, RunnerOptions(exact=True), feeds, feeds[0], {}, {})",
        ),
    ],
)
def test_a_float_model_is_run_without_what_reads_models(
    module: str, function: str, call: str, path: Path
) -> None:
    """Each of them costs more than a run, on CPUs as well whose 8-bit products may saturate."""
    code = _RUN.format(module=module, function=function, call=call)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_kernels_are_those_of_a_runner(path: Path) -> None:
    target = find_target("ort-cpu")
    model = Model.load(path)
    with target.runner(model) as runner:
        assert runner.kernels() == target.kernels(model) == target.kernels(path)
    assert target.kernels(path).counts == {"Mul": 1}
