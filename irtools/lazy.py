"""What is loaded when it is first used: heavy names of a face, and heavy modules of others."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any

__all__ = ["defer", "defer_symbolic_algebra", "lazy_names"]


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that loads names from their modules.

    Args:
        package: The package whose face it is.
        homes: The module of each name.
    """

    def load(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home), name)

    return load


def defer_symbolic_algebra() -> None:
    """Have `import onnx_ir` leave sympy until it is used, which is rare and costs 0.3 s.

    For programs of our own, at their very start; it changes what `import` does in the process.
    """
    for name in ("sympy", "onnx_ir._symbolic_shapes"):
        defer(name)


def defer(name: str) -> None:
    """Have `import NAME` cost nothing until something of the module is read.

    `LazyLoader` of the standard library does not serve here: the second `import` of such a module
    executes it.

    Args:
        name: A module, or one in a package. Nothing happens where it is loaded or not installed.
    """
    package = name.rpartition(".")[0]
    parent = find_spec(package) if package else None  # Found, and not imported.
    places = None if parent is None else parent.submodule_search_locations
    spec = None if name in sys.modules else PathFinder.find_spec(name, places)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    module.__class__ = _Deferred
    # The import system reads it of a package before it looks inside: that must execute the module.
    vars(module).pop("__path__", None)
    sys.modules[name] = module


class _Deferred(ModuleType):
    """A module that is executed when the first thing is read that it does not have yet."""

    _lock = RLock()

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            spec = self.__spec__
            if type(self) is _Deferred and spec is not None and spec.loader is not None:
                self.__class__ = ModuleType  # type: ignore[assignment]
                if spec.submodule_search_locations is not None:
                    self.__path__ = list(spec.submodule_search_locations)
                spec.loader.exec_module(self)
        return getattr(self, name)
