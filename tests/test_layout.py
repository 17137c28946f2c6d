"""The four rooms: who may import whom, what the wheel holds, what importing costs."""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "irtools": "irtools",
    "passes": "irtools.passes",
    "frontends": "irtools.frontends",
    "backends": "irtools.backends",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FLOORS: list[list[str]] = PROJECT["tool"]["irtools"]["floors"]
HEAVY = ("torch", "onnxruntime", "openvino", "transformers", "onnx", "onnxscript", "numpy")


def room_of(module: str) -> str:
    """Return the room that a module of ours belongs to."""
    for room in ("passes", "frontends", "backends"):
        if module == f"irtools.{room}" or module.startswith(f"irtools.{room}."):
            return room
    return "irtools"


@functools.cache
def modules() -> dict[str, Path]:
    """Return every module of the four rooms, with its file."""
    found = {}
    for room, name in ROOMS.items():
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT / room).with_suffix("").parts
            inner = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((name, *inner))] = path
    return found


@functools.cache
def edges() -> dict[str, set[str]]:
    """Return the modules that each module imports, type-checking imports included."""
    known = modules()
    return {name: imports_of(path, known) - {name} for name, path in known.items()}


def imports_of(path: Path, known: Container[str]) -> set[str]:
    """Return the modules that a file imports; a name that a package exports counts as the package.

    Importing a module from its package does not count as importing the package's face.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names if alias.name in known}
            case ast.ImportFrom(module=str(module)) if module in known:
                inner = (f"{module}.{alias.name}" for alias in node.names)
                found |= {name if name in known else module for name in inner}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of nodes that reach each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            place = stack.index(node)
            if len(circle := stack[place:]) > 1:
                found.append(sorted(circle))
            del stack[place:]

    for node in graph:
        if node not in index:
            visit(node)
    return found


def floor_of(module: str) -> int:
    """Return the floor of a module of `irtools`; the root itself stands above all others."""
    parts = module.split(".")
    if len(parts) == 1:
        return len(FLOORS)
    return next(number for number, rooms in enumerate(FLOORS) if parts[1] in rooms)


def imported_modules(path: Path) -> set[str]:
    """Return the names of our own modules that a file imports, at any depth in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module)):
                found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "irtools"}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    allowed = {"irtools", room}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / room).rglob("*.py")
        for name in imported_modules(path)
        if room_of(name) not in allowed
    ]
    assert not wrong


def test_rooms_import_from_lower_floors_only() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in edges().items()
        for other in others
        if room_of(name) == room_of(other) == "irtools"
        if name.split(".")[1:2] != other.split(".")[1:2] and floor_of(other) >= floor_of(name)
    ]
    assert not wrong


def test_floors_name_what_exists() -> None:
    named = {room for rooms in FLOORS for room in rooms}
    found = {path.stem for path in (ROOT / "irtools").iterdir() if path.suffix in ("", ".py")}
    assert found - {"__init__", "__pycache__"} <= named


def test_no_import_circle() -> None:
    """Among files and among packages, in the four rooms."""
    assert not circles(edges())
    packages: dict[str, set[str]] = {}
    for name, others in edges().items():
        own = package_of(name)
        packages.setdefault(own, set()).update({package_of(other) for other in others} - {own})
    # The face of the whole project and those of the outer rooms are above what they hold.
    assert circles(packages) == []


def package_of(module: str) -> str:
    """Return the room or family of a module: what is imported through one face."""
    depth = 3 if room_of(module) != "irtools" else 2
    return ".".join(module.split(".")[:depth])


def has_face(module: str) -> bool:
    """Whether a module is a package that others see by its `__all__` alone."""
    path = known_modules()[module]
    return path.name == "__init__.py" and hasattr(importlib.import_module(module), "__all__")


@functools.cache
def known_modules() -> dict[str, Path]:
    """Return the modules of the four rooms, of the benchmarks and of the examples."""
    found = modules()
    for folder in ("benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def past_the_face(own: str, text: str) -> list[str]:
    """Return what a module imports of other rooms other than through their faces.

    A room whose `__init__` has `__all__` is seen by these names alone; any other has no face, and
    its modules are imported. A package inside a room is held to the same, from outside the room.
    """
    wrong = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom) or node.module not in modules():
            continue
        module = str(node.module)
        parts = module.split(".")
        above = (".".join(parts[:depth]) for depth in range(2, len(parts)))
        names = {alias.name for alias in node.names}
        if package_of(module) == package_of(own) or module == "irtools":
            continue
        if any(has_face(package) for package in above):
            wrong.append(module)
        elif has_face(module):
            allowed = set(importlib.import_module(module).__all__)
            wrong += [f"{module}.{name}" for name in sorted(names - allowed)]
        elif modules()[module].name == "__init__.py":
            inner = {name for name in names if f"{module}.{name}" in modules()}
            wrong += [f"{module}.{name}" for name in sorted(names - inner)]
    return wrong


def test_rooms_are_seen_by_their_faces() -> None:
    wrong = [
        f"{name} imports {found}"
        for name, path in known_modules().items()
        for found in past_the_face(name, path.read_text(encoding="utf-8"))
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from irtools.data import Dataset", []),
        ("from irtools.data.base import Dataset", ["irtools.data.base"]),
        ("from irtools.data import base", ["irtools.data.base"]),
        ("from irtools.analysis.shapes import anything", []),
        ("from irtools.analysis import shapes", []),
        ("from irtools.analysis import infer", ["irtools.analysis.infer"]),
        ("from irtools.measure.contest import Contest", []),
        ("from irtools.measure.contest.samples import Part", ["irtools.measure.contest.samples"]),
        ("from irtools.errors import UsageError", []),
        ("from irtools.passmanager.base import Pass", ["irtools.passmanager.base"]),
    ],
)
def test_what_passes_a_face_by(line: str, found: list[str]) -> None:
    assert past_the_face("irtools.cli.verbs.inspect", line) == found


def test_no_private_name_of_another_module_is_imported() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}.{name}"
        for folder in (*ROOMS, "benchmarks", "examples", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for module, name in names_imported(path)
        if any(is_private(part) for part in (*module.split("."), name))
    ]
    assert not wrong


def is_private(name: str) -> bool:
    """Whether a name begins with an underscore and is none of Python's own."""
    return name.startswith("_") and not name.endswith("__")


def test_faces_hide_files_not_underscores() -> None:
    assert not [path for path in modules().values() if is_private(path.stem)]


def edits_in(path: Path) -> set[str]:
    """Return what a file makes or registers itself: `ir.node(..)`, `ir.Node(..)`, weights."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("ir" | "onnx_ir"), attr=name)):
                found.add(f"ir.{name}")
            case ast.Attribute(attr="register_initializer"):
                found.add("register_initializer")
            case ast.Assign(targets=[ast.Subscript(value=ast.Attribute(attr="initializers"))]):
                found.add("initializers[..] =")
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] == "onnx_ir":
                found |= {f"ir.{alias.name}" for alias in node.names}
    return found & {"ir.node", "ir.Node", "register_initializer", "initializers[..] ="}


def test_graphs_are_edited_in_one_room() -> None:
    """Nodes are made and weights registered by the editor alone, and by what reads files."""
    wrong = [
        f"{path.relative_to(ROOT)}: {', '.join(sorted(found))}"
        for name, path in modules().items()
        if not name.startswith(("irtools.editing", "irtools.model")) and (found := edits_in(path))
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import onnx_ir as ir\nir.node('Relu', [])", {"ir.node"}),
        ("from onnx_ir import Node", {"ir.Node"}),
        ("graph.register_initializer(value)", {"register_initializer"}),
        ("graph.initializers['w'] = value", {"initializers[..] ="}),
        ("def f(node: ir.Node) -> ir.Value: ...", set()),
    ],
)
def test_what_counts_as_an_edit(text: str, found: set[str], tmp_path: Path) -> None:
    path = tmp_path / "pass.py"
    path.write_text(text, encoding="utf-8")
    assert edits_in(path) == found


@pytest.mark.parametrize(
    "family", ["cleanup", "fusion", "pruning", "quantization", "precision", "tools", "vocabulary"]
)
def test_pass_families_do_not_know_each_other(family: str) -> None:
    own = f"irtools.passes.{family}"
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "passes" / family).rglob("*.py")
        for name in imported_modules(path)
        if name.startswith("irtools.passes.") and not name.startswith(own)
    ]
    assert not wrong


def source_packages() -> set[str]:
    """Return every package that is in the four rooms."""
    packages = set()
    for room, name in ROOMS.items():
        for init in (ROOT / room).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / room).parts
            packages.add(".".join((name, *parts)))
    return packages


def test_every_package_is_declared() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == source_packages()


def test_wheel_holds_every_module(tmp_path: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", tmp_path, ROOT],
        check=True,
        cwd=tmp_path,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    expected = {
        str(Path(*name.split("."), path.relative_to(ROOT / room)))
        for room, name in ROOMS.items()
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".json", ".html", ".css", ".js") or path.name == "py.typed"
    }
    assert expected <= packed
    assert {name.split("/")[0] for name in packed if "dist-info" not in name} == {"irtools"}


def modules_after(statement: str) -> set[str]:
    """Return the top-level packages loaded by a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys; print('\\n'.join({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


def test_import_is_light() -> None:
    assert not modules_after("import irtools").intersection(HEAVY)


def test_help_is_light() -> None:
    statement = (
        "import io, sys\nfrom irtools.cli.main import main\n"
        "sys.argv, out, sys.stdout = ['irc', '--help'], sys.stdout, io.StringIO()\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nsys.stdout = out"
    )
    loaded = modules_after(statement)
    assert "irtools" in loaded
    assert not loaded.intersection(HEAVY)


@pytest.mark.parametrize("package", sorted(source_packages()))
def test_public_names_exist(package: str) -> None:
    module = importlib.import_module(package)
    names = getattr(module, "__all__", [])
    assert len(names) == len(set(names))
    for name in names:
        assert getattr(module, name) is not None


def test_every_module_imports() -> None:
    """All but the frontends' own, which may need an extra, import with the core alone."""
    irtools = importlib.import_module("irtools")
    for info in pkgutil.walk_packages(irtools.__path__, "irtools."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)


def names_imported(path: Path) -> Iterator[tuple[str, str]]:
    """Yield module and name of each `from irtools... import name`, and module with no name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                found = [(alias.name, "") for alias in node.names]
            case ast.ImportFrom(module=str(module)):
                found = [(module, alias.name) for alias in node.names]
            case _:
                continue
        yield from (pair for pair in found if pair[0].split(".")[0] == "irtools")


def test_frontends_know_each_other_by_their_faces() -> None:
    """`checkpoint` builds on what `torch` exports, after others; `students` knows no frontend."""
    room = ROOT / "frontends"
    allowed = {
        ("checkpoint", "irtools.frontends.torch"),
        ("checkpoint", "irtools.frontends.quantizers"),
    }
    wrong = []
    for path in room.rglob("*.py"):
        package = path.relative_to(room).parts[0].removesuffix(".py")
        for module, name in names_imported(path):
            foreign = f"{module}.{name}".startswith("irtools.frontends.")
            inside = f"{module}.".startswith(f"irtools.frontends.{package}.")
            if foreign and not inside and (package, module) not in allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {module} {name}")
    assert not wrong


def test_frontends_are_packages() -> None:
    names = {path.name for path in (ROOT / "frontends").glob("*.py")}
    assert names == {"__init__.py", "onnx_file.py"}


def test_networks_of_students_know_nothing_of_their_training() -> None:
    room = ROOT / "frontends" / "students"
    later = {"networks": ("training", "distill", "finetune"), "training": ("distill", "finetune")}
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for part, names in later.items()
        for path in (room / part).glob("*.py")
        for module, _ in names_imported(path)
        if module.startswith(tuple(f"irtools.frontends.students.{name}" for name in names))
    ]
    assert not wrong
