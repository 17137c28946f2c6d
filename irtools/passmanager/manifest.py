"""What irtools registers itself, written down next to the code.

Importing a pass loads `onnx_ir`, numpy and more with it, a second of work before its name and
options can be listed. `docs/make_reference.py` writes them to `manifest.json` from the classes
themselves; a test compares the two. Plug-ins of other packages are not in it.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irtools.passmanager.base import Pass
from irtools.passmanager.options import options_of
from irtools.plugins import registry

__all__ = ["GROUPS", "MANIFEST", "described", "make_manifest", "pass_document", "summary_of"]

MANIFEST = Path(__file__).with_name("manifest.json")
GROUPS = ("irtools.passes", "irtools.targets", "irtools.metrics", "irtools.frontends")
_OWN = "irtools."


def described(group: str, name: str) -> Mapping[str, Any] | None:
    """Return what the manifest says of an entry point, without importing it.

    Returns:
        Of a pass what `pass_document` returns, of others their summary; None for a plug-in of
        another package, also of one that took a name of ours, and for a pass whose options have
        choices of other packages.
    """
    entry = _read().get(group, {}).get(name)
    point = registry.plugins(group).get(name)
    if entry is None or point is None or point.value != entry["place"]:
        return None
    document: Mapping[str, Any] = entry["document"]
    grown = any(map(registry.plugins, document.get("groups", ())))
    return None if grown else document


def make_manifest() -> str:
    """Return the text of the manifest, from the classes themselves."""
    document = {
        group: {
            name: {"place": point.value, "document": _document(group, name)}
            for name, point in sorted(registry.plugins(group).items())
            if point.value.startswith(_OWN)
        }
        for group in GROUPS
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def pass_document(name: str, found: type[Pass]) -> dict[str, Any]:
    """Describe a pass for `irc passes NAME` and its `--json`."""
    groups = sorted({o.group for o in options_of(found)} - {""})
    return {
        "name": name,
        "summary": summary_of(found),
        "description": inspect.cleandoc(found.__doc__ or ""),
        "exactness": found.exactness.value,
        "idempotent": found.idempotent,
        "requires": list(found.requires),
        "options": [
            {
                "name": o.name,
                "type": o.type_text,
                "default": list(o.default) if isinstance(o.default, tuple) else o.default,
                "help": o.help,
            }
            for o in options_of(found)
        ],
        "counters": dict(found.counters),
    } | ({"groups": groups} if groups else {})


def summary_of(found: Any) -> str:
    """Return the line that stands for a class in lists."""
    first = inspect.cleandoc(found.__doc__ or "").partition("\n")[0]
    return getattr(found, "summary", "") or first


def _document(group: str, name: str) -> dict[str, Any]:
    found = registry.load(group, name)
    if group == "irtools.passes":
        return pass_document(name, found)
    return {"summary": summary_of(found)}


@functools.cache
def _read() -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return document
