"""What is declared as a dependency, what the wheel and the sdist hold, and what the core needs."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("irtools", "passes", "frontends", "backends")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
TOOLS = ("browser", "site", "dev", "all")
"""Extras for those who work on irtools, not for what it imports."""

# Distributions by the module that is imported of them, where the names differ.
_MODULES = {
    "pillow": "PIL",
    "onnxruntime-gpu": "onnxruntime",
    "mlflow-skinny": "mlflow",
    "nvidia-ml-py": "pynvml",
}
_FOR_OTHERS = {
    "pyopenssl": "model-signing imports it and does not declare it",
    "sqlalchemy": "MLflow's store in a database imports it, which the small package does not need",
    "alembic": "likewise",
    "prettytable": "neural-compressor imports it and does not declare it",
    "py_cpuinfo": "neural-compressor imports it and does not declare it",
    "pydantic": "neural-compressor imports it and does not declare it",
}
_BROUGHT_ALONG = {
    "google": "protobuf, which onnx needs itself",
    "yaml": "accelerate and transformers need it themselves",
    "pyarrow": "read where it is installed; the message says how otherwise",
    "huggingface_hub": "transformers needs it itself",
    "mcp_types": "mcp needs it itself",
}


def _modules(requirements: list[str]) -> set[str]:
    names = (re.split(r"[><=!~\[; ]", text)[0] for text in requirements)
    return {_MODULES.get(name, name.replace("-", "_")) for name in names}


def _imported(*folders: str) -> set[str]:
    """Return the third-party packages that code of ours imports."""
    found: set[str] = set()
    for path in (p for folder in folders for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import():
                    found |= {alias.name.split(".")[0] for alias in node.names}
                case ast.ImportFrom(level=0, module=str(module)):
                    found.add(module.split(".")[0])
                case ast.Call(
                    func=ast.Name(id="import_module"), args=[ast.Constant(value=str(name))]
                ):
                    found.add(name.split(".")[0])
                case ast.Call(
                    func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name))]
                ):
                    found.add(name.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"irtools"}


def test_every_import_is_declared_and_every_dependency_imported() -> None:
    declared = _modules(PROJECT["dependencies"])
    for extra in set(EXTRAS) - set(TOOLS):
        declared |= _modules(EXTRAS[extra])
    imported = _imported(*ROOMS)
    assert imported - declared <= set(_BROUGHT_ALONG)
    assert declared - imported == set(_FOR_OTHERS)


def test_every_comparison_is_declared() -> None:
    declared = _modules(PROJECT["dependencies"]).union(*(_modules(EXTRAS[e]) for e in EXTRAS))
    assert _imported("benchmarks") - {"benchmarks"} <= declared | set(_BROUGHT_ALONG)


def test_constraints_pin_what_is_declared() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    wanted = [*PROJECT["dependencies"]] + [r for extra in EXTRAS for r in EXTRAS[extra]]
    names = {re.split(r"[><=!~\[; ]", text)[0] for text in wanted}
    assert names - pinned == {"irtools-compiler", "onnxruntime-gpu"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and in `direct` and `again` the wheels of the tree and of it."""
    folder = tmp_path_factory.mktemp("dist")
    # A copy: what an earlier build left in the tree would be packed as well.
    source = folder / "source"
    source.mkdir()
    for name in (*ROOMS, "pyproject.toml", "README.md", "LICENSE"):
        make = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        make(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--no-isolation"]
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([*build, "--sdist", "--outdir", folder, source], **quiet)  # type: ignore[call-overload]
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    (tree,) = (folder / "unpacked").iterdir()
    for place, out in ((source, "direct"), (tree, "again")):
        subprocess.run([*build, "--wheel", "--outdir", folder / out, place], **quiet)  # type: ignore[call-overload]
    return folder


def _contents(folder: Path) -> dict[str, bytes]:
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if "RECORD" not in name}


@pytest.mark.slow
def test_the_sdist_makes_the_same_wheel(built: Path) -> None:
    direct, again = _contents(built / "direct"), _contents(built / "again")
    assert set(direct) == set(again)
    assert [name for name, content in direct.items() if content != again[name]] == []
    assert "irtools/passmanager/manifest.json" in direct


@pytest.mark.slow
def test_the_sdist_has_what_a_packager_wants(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "PKG-INFO", "passes/__init__.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("build/")]


_WITHOUT = ("torch", "transformers", "openvino", "onnxscript", "nncf", "accelerate", "peft", "PIL")
# As on a machine that has the core alone: the wheel, and none of the extras.
_CORE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
for name in {without!r}:
    sys.modules[name] = None
from irtools.cli.main import main
import irtools
assert irtools.__file__.startswith(sys.path[0]), irtools.__file__
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    [
        ("--help",),
        ("passes",),
        ("passes", "int8"),
        ("targets",),
        ("inspect", "model.onnx"),
        ("optimize", "model.onnx", "--passes", "O3", "--no-bench", "-o", "small.onnx"),
    ],
    ids=" ".join,
)
def test_the_wheel_works_without_the_extras(
    built: Path, tmp_path: Path, call: tuple[str, ...]
) -> None:
    (wheel,) = (built / "again").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    _write_model(tmp_path / "model.onnx")
    script = _CORE.format(without=_WITHOUT)
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", script, str(tmp_path / "installed"), *call],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "small.onnx").exists() == (call[0] == "optimize")


def _write_model(path: Path) -> None:
    import onnx

    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[batch, 4] x) => (float[batch, 4] y)
        <float[4, 4] w = {1,2,3,4,5,6,7,8,9,8,7,6,5,4,3,2}> { h = MatMul(x, w)
        y = Relu(h) }"""
    )
    onnx.save(model, path)
