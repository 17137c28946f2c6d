"""Which forms there are, and plans that name them.

Those of irtools are in the table below, each on a line; other packages add theirs through entry
points of the group `irtools.forms`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from irtools.errors import UnknownNameError, UsageError
from irtools.passes.quantization.forms.base import Form, WeightDecision
from irtools.passes.quantization.forms.decisions import UseDecision
from irtools.passes.quantization.sites.reasons import Reason
from irtools.passmanager import Decision
from irtools.plugins import registry

__all__ = ["FORM_GROUP", "counters_of", "explained", "find_form", "forms_of", "read_decision"]

_OWN = {
    "static": "static:Static",
    "dynamic": "dynamic:Dynamic",
    "token-wise": "token_wise:TokenWise",
    "token-blocks": "token_wise:TokenBlocks",
    "weight-only": "weight_only:WeightOnly",
    "rows": "rows:RowTable",
    "table": "blocks:BlockTable",
    "tied": "blocks:Tied",
    "int4": "blocks:Int4",
    "nf4": "blocks:Nf4",
    "grid": "grids:GridProduct",
    "grid-table": "grids:GridTable",
    "s8": "stored8:Stored8",
    "f16": "half:Half",
    "fp8": "fp8:Fp8",
}
"""Name to module, in this folder, and class."""

_FOLDER = "irtools.passes.quantization.forms"

FORM_GROUP = "irtools.forms"
"""Entry points of forms of other packages."""

F = TypeVar("F", bound=Form[Any])


@functools.cache
def find_form(name: str) -> type[Form[Any]]:
    """Return the form of a name.

    Raises:
        UnknownNameError: There is none.
    """
    if name not in _OWN:
        plugged: type[Form[Any]] = registry.load(FORM_GROUP, name)
        return plugged
    module, _, place = _OWN[name].partition(":")
    found: type[Form[Any]] = getattr(import_module(f"{_FOLDER}.{module}"), place)
    return found


def forms_of(kind: type[F]) -> dict[str, type[F]]:
    """Return the forms of a kind by name: what a user can choose among."""
    found = {name: find_form(name) for name in (*_OWN, *registry.names(FORM_GROUP))}
    return {name: form for name, form in found.items() if issubclass(form, kind)}


def explained(forms: Mapping[str, type]) -> str:
    """Return the first lines of the docstrings of classes, for the help of an option."""
    first = {name: (form.__doc__ or "").splitlines()[0] for name, form in forms.items()}
    return "; ".join(f"{name}: {line.rstrip('.')}" for name, line in first.items())


def counters_of(forms: Iterable[type[Form[Any]]], reasons: Iterable[Reason]) -> dict[str, str]:
    """Return the counters of a pass that writes some forms: what it did, and left alone why.

    Args:
        forms: All that it may write.
        reasons: What it leaves alone before a form is asked.
    """
    forms = tuple(forms)
    done = [item for form in forms for item in form.counters.items()]
    given = [*reasons, *(reason for form in forms for reason in form.reasons)]
    found: dict[str, str] = {}
    for name, phrase in (*done, *((reason.counter, reason.phrase) for reason in given)):
        found.setdefault(name, phrase)
    return found


def read_decision(decision: Decision) -> WeightDecision:
    """Read what `WeightDecision.to_data` wrote.

    Raises:
        UsageError: The decision was not made by a pass of this family.
    """
    data: Any = decision.data
    try:
        form = find_form(data["form"])
        names = [field.name for field in dataclasses.fields(form) if field.name in data]
        values = {name: data[name] for name in names}
        made = form(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})
        uses = tuple(UseDecision.from_data(use) for use in data["uses"])
        return WeightDecision(data["weight"], made, uses, data["scope"])
    except (KeyError, TypeError, ValueError, UnknownNameError) as error:
        raise UsageError(
            f"the decision about {decision.subject!r} is not a decision about a quantized "
            f"weight: {error!r}"
        ) from error
