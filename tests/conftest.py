"""What every room's tests share."""

from __future__ import annotations

import functools
import inspect
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import onnx_ir as ir
import pytest

from irtools.errors import UnsupportedError
from irtools.model import Model
from irtools.passmanager import PassContext
from irtools.targets import Isa, Runner, RunnerOptions, find_target
from irtools.targets import isa as detection

# How long a busy machine takes to draw examples says nothing of what is tested.
hypothesis.settings.register_profile(
    "irtools", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("irtools")

_EXTRAS = {
    "torch": ("torch", "transformers"),
    "gguf": ("gguf", "safetensors"),
    "openvino": ("openvino",),
    "chat": ("jinja2",),
    "genai": ("onnxruntime_genai",),
    "tune": ("optuna",),
    "ray": ("ray", "grpc"),
    "zero": ("deepspeed",),
    "signing": ("model_signing",),
    "serving": ("fastapi", "httpx", "uvicorn"),
    "triton": ("tritonclient", "grpc"),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "cyclonedx": ("cyclonedx", "jsonschema"),
    "nncf": ("nncf",),
    "browser": ("playwright", "axe_playwright_python"),
    "ui": ("fastapi", "uvicorn", "sse_starlette", "jinja2", "psutil"),
    "mcp": ("mcp",),
    "autoround": ("auto_round",),
    "lm_eval": ("lm_eval",),
    "neural_compressor": ("neural_compressor", "prettytable"),
}


_CHILD = """
import sys

class Finder:
    \"\"\"Replaces the detection when its module is imported, and imports nothing by itself.\"\"\"

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "irtools.targets.isa":
            return None
        others = (finder for finder in sys.meta_path if finder is not Finder)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)))
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            module._detect = lambda: module.Isa({!r})

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder)
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--isa",
        choices=[isa.value for isa in Isa],
        help="run as if this machine had the instruction set: what is planned must not depend on "
        "the CPU that the tests run on (what is computed still does)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Replace the detection of the CPU, in this process and in those that tests start."""
    name = config.getoption("--isa")
    if name is None:
        return
    replaced = functools.wraps(inspect.unwrap(detection._detect))(lambda: Isa(name))
    detection._detect = replaced  # type: ignore[assignment]
    folder = tempfile.TemporaryDirectory(prefix="irtools-tests-")
    config.add_cleanup(folder.cleanup)
    (Path(folder.name) / "sitecustomize.py").write_text(_CHILD.format(name), encoding="utf-8")
    paths = [folder.name, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def pytest_report_header(config: pytest.Config) -> list[str]:
    forced = " (forced)" if config.getoption("--isa") else ""
    return [f"instruction set: {Isa.detect().value}{forced}"]


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
    """Keep what commands cache out of the home folder of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_sessionstart() -> None:
    """Let Ctrl-C reach what tests start: jobs in the background ignore it, and their children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A Chromium without a window, of Playwright (`Browser`)."""
    from playwright.sync_api import sync_playwright

    place = shutil.which("chromium") or shutil.which("chromium-browser")
    assert place is not None, "there is no chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        # As root, in a container, Chromium has no sandbox of its own.
        found = playwright.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield found
        found.close()


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


@pytest.fixture
def by_genai() -> Callable[[Path, Sequence[int], int], list[int]]:
    """Let onnxruntime-genai continue a prompt, greedily, up to a length."""

    def write(folder: Path, prompt: Sequence[int], length: int) -> list[int]:
        import numpy as np
        import onnxruntime_genai as genai

        model = genai.Model(str(folder))
        params = genai.GeneratorParams(model)
        params.set_search_options(do_sample=False, max_length=length)
        generator = genai.Generator(model, params)
        generator.append_tokens(np.array(prompt, np.int32))
        found = []
        while not generator.is_done():
            generator.generate_next_token()
            found.append(int(generator.get_next_tokens()[0]))
        return found

    return write


@pytest.fixture
def talks() -> Callable[..., Path]:
    """Write what is next to a decoder of 61 tokens: tokenizer, chat template, configuration."""

    def write(folder: Path, model: Model | None = None, **config: object) -> Path:
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from tokenizers.pre_tokenizers import Whitespace

        words = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(3, 61))]
        vocabulary = {word: number for number, word in enumerate(words)}
        tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
        tokenizer.pre_tokenizer = Whitespace()  # type: ignore[assignment]
        folder.mkdir(exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "chat_template.jinja").write_text("{{ messages[0].content }} w7 w8")
        known = {"hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 24}
        ends = {"bos_token_id": 1, "eos_token_id": 2}
        (folder / "config.json").write_text(json.dumps(known | ends | config))
        if model is not None:
            model.save(folder / "model.onnx")
        return folder

    return write
