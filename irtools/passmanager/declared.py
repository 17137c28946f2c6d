"""The options that a pass declares, read from its source.

Importing a pass loads `onnx_ir` and more with it, a second of work before a misspelt option can
be refused. The class definition itself says all that is needed, and it is the only place that
says it: the fields of the dataclass and their annotations. They are read as syntax; whatever is
written in a way that syntax alone does not explain is not judged here (None), but when the class
is imported.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from functools import reduce
from importlib.machinery import ModuleSpec
from operator import or_
from pathlib import Path
from typing import Any, Literal

__all__ = ["UNREAD", "declared_options"]

UNREAD = object()
"""The type of an option that syntax alone does not explain."""

_ROOTS = frozenset({"Pass", "PlanningPass"})
_ROOT_MODULES = frozenset({"irtools", "irtools.passmanager", "irtools.passmanager.base"})
_WITHOUT_FIELDS = frozenset({("abc", "ABC"), ("typing", "Protocol")})
_TYPES: Mapping[str, Any] = {"bool": bool, "float": float, "int": int, "str": str}
_MAX_DEPTH = 8


def declared_options(place: str) -> Mapping[str, Any] | None:
    """Return the options of a pass class by name, `-` for `_`, with their types.

    Nothing is imported.

    Args:
        place: `module:Class`, as an entry point names it.

    Returns:
        Name to type, `UNREAD` where it is not understood; None where the class is not.
    """
    module, _, name = place.partition(":")
    return _options(module, name, _MAX_DEPTH)


def _options(module: str, name: str, depth: int) -> dict[str, Any] | None:
    if module in _ROOT_MODULES and name in _ROOTS:
        return {}
    tree = _syntax(module) if depth else None
    if tree is None:
        return None
    imported = _imported(tree)
    found = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if found is None:
        return _options(*imported[name], depth - 1) if name in imported else None
    if not _is_dataclass(found) or found.keywords:
        return None
    options: dict[str, Any] = {}
    for base in found.bases:
        if not isinstance(base, ast.Name):
            return None
        origin = imported.get(base.id, (module, base.id))
        inherited = {} if origin in _WITHOUT_FIELDS else _options(*origin, depth - 1)
        if inherited is None:
            return None
        options |= inherited
    own = _fields(found)
    return None if own is None else options | own


def _fields(found: ast.ClassDef) -> dict[str, Any] | None:
    """Return the fields of a dataclass; None where one of them is not a plain option."""
    fields: dict[str, Any] = {}
    for node in found.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        annotation = node.annotation
        head = annotation.value if isinstance(annotation, ast.Subscript) else annotation
        if _name(head) == "ClassVar":
            continue
        call = node.value
        if isinstance(call, ast.Call) and any(k.arg in (None, "init") for k in call.keywords):
            return None
        kind = UNREAD if _has_choices(call) else _type(annotation)
        fields[node.target.id.replace("_", "-")] = kind
    return fields


def _has_choices(call: ast.expr | None) -> bool:
    """Whether an option takes what is registered, which is known when the class is imported."""
    if not isinstance(call, ast.Call) or _name(call.func) != "option":
        return False
    return len(call.args) > 2 or any(keyword.arg == "choices" for keyword in call.keywords)


def _type(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            parts = [_type(left), _type(right)]
            return UNREAD if UNREAD in parts else reduce(or_, parts)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            items = choices.elts if isinstance(choices, ast.Tuple) else [choices]
            values = [item.value for item in items if isinstance(item, ast.Constant)]
            return Literal[tuple(values)] if len(values) == len(items) else UNREAD
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[kind, _])):
            return tuple[str, ...] if _name(kind) == "str" else UNREAD
        case _:
            return UNREAD


def _is_dataclass(found: ast.ClassDef) -> bool:
    heads = [d.func if isinstance(d, ast.Call) else d for d in found.decorator_list]
    return [_name(head) for head in heads] == ["dataclass"]


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _imported(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Return what a module takes from others: name here to module and name there."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }


def _syntax(module: str) -> ast.Module | None:
    origin = _origin(module)
    if origin is None or not origin.endswith(".py"):
        return None
    try:
        return ast.parse(Path(origin).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None  # The import will say what is wrong with it.


def _origin(module: str) -> str | None:
    """Return the file of a module. `importlib.util.find_spec` would import its packages."""
    path, spec, name = None, None, ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        spec = _spec(name, path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return None if spec is None else spec.origin


def _spec(name: str, path: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = None if find is None else find(name, path)
        if isinstance(spec, ModuleSpec):
            return spec
    return None
