"""Pages from templates; every value is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi.responses import HTMLResponse

from irtools.words import printable

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["STATIC", "fragment", "page"]

STATIC = Path(__file__).with_name("static")
_TEMPLATES = Path(__file__).with_name("templates")
_PAGES = (("/", "Runs"), ("/live", "Live"), ("/try", "Try it"), ("/jobs", "Jobs"))


def page(template: str, here: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a whole page.

    Args:
        template: Name of its template.
        here: Path of the page that the navigation marks.
        status: HTTP status.
        values: What the template shows.
    """
    return _answer(template, {"pages": _PAGES, "here": here, **values}, status)


def fragment(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a part of a page, for htmx."""
    return _answer(template, values, status)


def _answer(template: str, values: Mapping[str, Any], status: int) -> HTMLResponse:
    text = _environment().get_template(template).render(**values)
    return HTMLResponse(text, status_code=status)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["harmless"] = lambda text: printable(text, 500)
    return found
