"""The generated pages say what the code says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest

from irtools.passmanager import PassContext

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("page", ["reference", "architecture"])
def test_page_is_up_to_date(page: str) -> None:
    script = ROOT / "docs" / f"make_{page}.py"
    done = subprocess.run([sys.executable, script, "--check"], check=False, cwd=ROOT / "docs")
    assert done.returncode == 0, f"run `make docs` and commit docs/{page}.md"


@pytest.fixture
def guide(tmp_path: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Import the code block of a guide that defines a class."""
    guides = [ROOT / "docs" / f"adding-a-{what}.md" for what in ("pass", "form")]
    text = "".join(path.read_text(encoding="utf-8") for path in guides)
    blocks = [textwrap.dedent(b) for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    loaded: list[str] = []

    def load(name: str) -> ModuleType:
        (block,) = (b for b in blocks if f"class {name}(" in b and "import" in b)
        path = tmp_path / f"guide_{name.lower()}.py"
        path.write_text(block, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        loaded.append(path.stem)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]


def test_the_fusion_of_the_guide_fuses(
    guide: Callable[[str], ModuleType], make_context: Callable[..., PassContext]
) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N,8] x) => (float[N,8] y) '
        "<float three = {3.0}, float share = {0.044715}, float root = {0.7978846}, "
        "float one = {1.0}, float half = {0.5}> { p = Pow(x, three)  q = Mul(p, share)  "
        "s = Add(x, q)  a = Mul(s, root)  t = Tanh(a)  u = Add(t, one)  h = Mul(x, half)  "
        "y = Mul(h, u) }"
    )
    result = guide("FuseGeluTanh").FuseGeluTanh().run(model, make_context())
    assert result.counters == {"num-fused-gelu-tanh": 1, "num-unfused-gelu-tanh": 0}
    assert [node.op_type for node in model.graph] == ["Gelu"]


def test_the_pass_of_the_guide_runs(
    guide: Callable[[str], ModuleType], make_context: Callable[..., PassContext]
) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N] x) => (float[N] y) '
        "{ a = Relu(x)  b = Dropout(a)  y = Dropout(b) }"
    )
    result = guide("DropDropout").DropDropout().run(model, make_context())
    assert result.modified and [node.op_type for node in model.graph] == ["Relu"]
    assert model.graph.outputs[0].name == "y"


def test_the_form_of_the_guide_keeps_what_it_says(guide: Callable[[str], ModuleType]) -> None:
    form = guide("Stored16").Stored16((0,))
    array = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    assert form.encode(array).numbers.dtype == np.int16
    assert 0 < form.lost(array) < 1e-8
    assert form.name == "s16" and form.opset == 0
