"""Forms made of what passes declare, and pipelines made of forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from irtools.errors import UsageError
from irtools.passmanager import described, pass_document
from irtools.plugins import registry

__all__ = ["Field", "PassForm", "pass_form", "pass_names", "pipeline_of"]

_PASSES = "irtools.passes"
_SAFE = "/._-*@~^+:"


@dataclass(frozen=True)
class Field:
    """An option of a pass as a field of a form.

    Attributes:
        name: The option.
        kind: `choice`, `number` or `text`.
        choices: Of a choice.
        default: As text; empty for none.
        help: What it means.
    """

    name: str
    kind: str
    choices: tuple[str, ...]
    default: str
    help: str


@dataclass(frozen=True)
class PassForm:
    """A pass and its fields."""

    name: str
    summary: str
    fields: tuple[Field, ...]


def pass_names() -> list[tuple[str, str]]:
    """Return the passes and their summaries."""
    return [(name, str(_document(name)["summary"])) for name in registry.names(_PASSES)]


def pass_form(name: str) -> PassForm:
    """Return the form of a pass.

    Raises:
        UnknownNameError: There is no such pass.
    """
    document = _document(name)
    fields = tuple(_field(option) for option in document["options"])
    return PassForm(name, document["summary"], fields)


def pipeline_of(pairs: Sequence[tuple[str, str]]) -> str:
    """Return the pipeline of a form: `pass` begins one, `option.NAME` are its options.

    Raises:
        UsageError: An option before any pass.
        UnknownNameError: There is no such pass, or it has no such option.
        OptionError: A value that an option does not take.
    """
    from irtools.passmanager import Pipeline

    texts: list[str] = []
    for name, value in pairs:
        if name == "pass":
            texts.append(value)
        elif name.startswith("option.") and value.strip():
            if not texts:
                raise UsageError(f"{name} stands before any pass")
            texts[-1] += f":{name.removeprefix('option.')}={quote(value.strip(), safe=_SAFE)}"
    text = ",".join(texts)
    return str(Pipeline.parse(text)) if text else ""


def _document(name: str) -> dict[str, Any]:
    known = described(_PASSES, name) if name in registry.names(_PASSES) else None
    return dict(known or pass_document(name, registry.load(_PASSES, name)))


def _field(option: dict[str, Any]) -> Field:
    kind = str(option["type"]).removesuffix(" or none")
    default = option["default"]
    shown = "" if default is None else _shown(default)
    parts = tuple(kind.split("|"))
    if len(parts) > 1:
        return Field(option["name"], "choice", parts, shown, option["help"])
    field = "number" if kind in ("integer", "number") else "text"
    return Field(option["name"], field, (), shown, option["help"])


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "+".join(map(str, default)) if isinstance(default, list) else str(default)
