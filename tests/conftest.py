"""What every room's tests share."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import NoReturn

import onnx_ir as ir
import pytest

from irtools.errors import UnsupportedError
from irtools.model import Model
from irtools.passmanager import PassContext
from irtools.target import Runner, RunnerOptions, find_target

_EXTRAS = {"torch": ("torch", "transformers"), "openvino": ("openvino", "nncf")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out tests of an optional extra that is not installed."""
    missing = {
        extra
        for extra, packages in _EXTRAS.items()
        if any(find_spec(package) is None for package in packages)
    }
    for item in items:
        for extra in missing.intersection(mark.name for mark in item.iter_markers()):
            item.add_marker(pytest.mark.skip(reason=f"needs the extra `{extra}`"))
        if item.get_closest_marker("gpu") is not None and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU and onnxruntime-gpu"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what commands cache out of the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_sessionstart() -> None:
    """Let Ctrl-C reach what tests start: jobs in the background ignore it, and their children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@cache
def _has_gpu() -> bool:
    """Whether the CUDA provider is there and starts: the package also installs without a GPU."""
    one = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> m (float[1] x) => (float[1] y) { y = Neg(x) }'
    )
    try:
        find_target("ort-cuda").runner(Model(one)).close()
    except UnsupportedError:
        return False
    return True


@pytest.fixture(scope="session")
def make_context() -> Callable[..., PassContext]:
    """Make a context for running a pass by itself: `make_context("ort-cpu")`.

    It has the target's table and its runner, but no data and no benchmark.
    """

    def make(target_name: str = "ort-cpu") -> PassContext:
        target = find_target(target_name, check=False)

        def absent(*_: object) -> NoReturn:
            raise AssertionError("this pass was not expected to ask for data or timings")

        def runner(model: ir.Model, options: RunnerOptions) -> Runner:
            return target.runner(Model(model), options)

        return PassContext(target=target, statistics=absent, runner=runner, measure_latency=absent)

    return make
