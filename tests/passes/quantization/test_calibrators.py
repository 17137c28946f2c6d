"""Calibrators and roundings of other packages, and the moving average."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from irtools.data import Dataset
from irtools.errors import UsageError
from irtools.passes.quantization.held_out import hold_out
from irtools.passes.quantization.ranges.rounding import Second, rounded_in_blocks, roundings
from irtools.passes.quantization.ranges.spec import BlockSpec
from irtools.plugins import registry
from irtools.statistics import Grid, MinMaxResult, RangeEstimator, calibrators, estimated_range
from irtools.testing import TINY_MODELS

from .conftest import build, context, relative_error

PAGE = Path(__file__).parents[3] / "docs" / "adding-a-calibrator.md"
LAYER = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[b,64] x, float[64,64] w) => (float[b,64] y) { y = MatMul(x, w) }
"""
INT8 = "int8:mode=static:min-size=0:smooth=false:outliers=0:method=rtn"


def examples() -> list[str]:
    """The modules that the page shows."""
    blocks = re.findall(r"^( *)```python\n(.*?)^ *```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", code, flags=re.MULTILINE) for indent, code in blocks]


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The examples of the page, installed."""
    for name, code in zip(("sigmas_of_docs", "stochastic_of_docs"), examples(), strict=True):
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {
        "irtools.calibrators": {"sigmas": "sigmas_of_docs:Sigmas"},
        "irtools.roundings": {"stochastic": "stochastic_of_docs:Stochastic"},
    }
    whole = registry.plugins

    def plugins(group: str) -> dict[str, EntryPoint]:
        points = {n: EntryPoint(n, v, group) for n, v in found.get(group, {}).items()}
        return {**whole(group), **points}

    monkeypatch.setattr(registry, "plugins", plugins)
    roundings.cache_clear()
    yield
    roundings.cache_clear()


def test_the_examples_are_found(plugged: None) -> None:
    assert "sigmas" in calibrators() and "stochastic" in roundings()


def test_the_calibrator_of_the_page(plugged: None, quantize, monkeypatch) -> None:
    from irtools.passes.quantization import int8

    monkeypatch.setattr(int8, "_CALIBRATORS", calibrators())
    x = np.random.default_rng(0).normal(size=(400, 64)).astype(np.float32)
    x[0, 0] = 1000
    scales = {}
    for name in ("minmax", "sigmas"):
        pass_ = int8.Int8(
            mode="static",
            min_size=0,
            smooth="false",
            outliers=0,
            least_sqnr=None,
            calibrator=name,
        )
        done = quantize(build(LAYER), pass_, x=x)
        (node,) = (n for n in done.after.graph if n.op_type == "QuantizeLinear")
        scales[name] = float(node.inputs[1].const_value.numpy())
    sigma = np.sqrt(x.var())
    assert scales["minmax"] == pytest.approx((1000 - x.min()) / 255, rel=0.01)
    assert scales["sigmas"] == pytest.approx((6 * sigma - x.min()) / 255, rel=0.05)


def test_the_rounding_of_the_page(plugged: None) -> None:
    rows = np.full((4, 64), 0.3, np.float32)
    rows[:, 0] = 7.0
    found = rounded_in_blocks("stochastic", Second(np.eye(64)))(rows, BlockSpec(4, 32))
    codes = found.codes[:, 32:] * found.scale[:, 1:]
    np.testing.assert_allclose(codes, 0.3, rtol=1e-5)
    first = found.codes[:, 1:32].astype(float) * found.scale[:, :1]
    assert 0 < (first > 0).mean() < 1 and first.mean() == pytest.approx(0.3, abs=0.15)


def test_wrong_ranges_and_codes_are_refused(plugged: None, monkeypatch) -> None:
    class Reversed(RangeEstimator):
        """the wrong way round."""

        def estimate(self, seen, grid):
            return 1.0, -1.0

    with pytest.raises(UsageError, match=r"Reversed gave the range 1.0 to -1.0 for 'x', expected"):
        estimated_range(Reversed(), MinMaxResult(0, 1), Grid(), "x")
    kind = roundings()["stochastic"]
    monkeypatch.setattr(kind, "codes", lambda self, rows, steps, inputs: rows * 100 + 0.5)
    with pytest.raises(UsageError, match="'stochastic' gave codes that are not whole numbers"):
        rounded_in_blocks("stochastic", Second(np.eye(32)))(np.ones((2, 32)), BlockSpec(4, 32))


def test_what_is_no_calibrator_is_refused(plugged: None, monkeypatch) -> None:
    whole = registry.plugins

    def plugins(group: str) -> dict[str, EntryPoint]:
        return {**whole(group), "strange": EntryPoint("strange", "os:sep", group)}

    monkeypatch.setattr(registry, "plugins", plugins)
    roundings.cache_clear()
    with pytest.raises(UsageError, match="'strange' is '/', expected a RangeEstimator"):
        calibrators()
    with pytest.raises(UsageError, match="'strange' is '/', expected a WeightRounding"):
        roundings()


def test_the_moving_average_is_that_of_the_samples(quantize, outputs) -> None:
    """Samples run in order here, all of one length."""
    x = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    x[7] *= 10
    done = quantize(build(LAYER), f"{INT8}:calibrator=moving-average", x=x)
    seen = hold_out(context("ort-cpu", Dataset({"x": x}))).calibration.feeds["x"]
    low, high = seen[0].min(), seen[0].max()
    for sample in seen[1:]:
        low += 0.01 * (sample.min() - low)
        high += 0.01 * (sample.max() - high)
    (node,) = (n for n in done.after.graph if n.op_type == "QuantizeLinear")
    assert float(node.inputs[1].const_value.numpy()) == pytest.approx((high - low) / 255, rel=1e-4)
    fresh = np.random.default_rng(1).normal(size=(50, 64)).astype(np.float32)
    whole = quantize(build(LAYER), INT8, x=x)
    errors = [
        relative_error(outputs(each.after, x=fresh), outputs(build(LAYER), x=fresh))
        for each in (done, whole)
    ]
    assert errors[0] < errors[1]


@pytest.mark.slow
def test_an_installed_package_is_found_by_the_command(tmp_path: Path) -> None:
    """The page's classes as a package with metadata, in a process that knows nothing else of it."""
    site = tmp_path / "site"
    info = site / "quantization_of_docs-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: quantization-of-docs\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(
        "[irtools.calibrators]\nsigmas = sigmas_of_docs:Sigmas\n"
        "[irtools.roundings]\nstochastic = stochastic_of_docs:Stochastic\n"
    )
    for name, code in zip(("sigmas_of_docs", "stochastic_of_docs"), examples(), strict=True):
        (site / f"{name}.py").write_text(code)
    TINY_MODELS["mlp"]().save(tmp_path / "mlp.onnx")
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def irc(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "irtools.cli.main", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    pipeline = "int8:mode=static:min-size=0:calibrator=sigmas:method=stochastic"
    done = irc("optimize", "mlp.onnx", "--passes", pipeline, "--no-bench", "-o", "out.onnx")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.onnx").is_file()
    told = irc("passes", "int8").stdout
    assert "six standard deviations around the mean" in " ".join(told.split())
    environment.pop("PYTHONPATH")
    missing = irc("optimize", "mlp.onnx", "--passes", pipeline, "-o", "other.onnx")
    assert missing.returncode == 2 and "sigmas" in missing.stderr
