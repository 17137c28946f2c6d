"""Templates, and whole pages of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from irtools.pages.policy import asset, content_policy
from irtools.words import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from irtools.pages.blocks import Block, Head, Section

__all__ = ["fragment", "page", "section_page", "templates"]

_LIMIT = 1000


@functools.cache
def templates(package: str = "irtools.pages") -> Environment:
    """Return the templates of a package, and after them those that all pages share.

    Whatever a template prints is escaped, and control codes in it are shown as numbers. A name that
    a template uses and the caller did not give is an error.

    Args:
        package: Has a folder `templates`.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    packages = dict.fromkeys((package, "irtools.pages"))
    found = Environment(
        loader=ChoiceLoader([PackageLoader(one) for one in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["runs"] = _runs
    found.filters["safe_base64"] = _base64
    return found


def page(
    template: str,
    package: str,
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    **values: Any,
) -> str:
    """Return a page of a template that extends `base.html`; it needs no other file.

    Args:
        template: Its name.
        package: As `templates` takes it.
        styles: Texts of style sheets after the shared one.
        scripts: Texts of scripts after the shared one.
        values: What the template prints.
    """
    from markupsafe import Markup

    sheets = (asset("base.css"), *styles)
    programs = (asset("page.js"), *scripts)
    policy = Markup(content_policy(sheets, programs))
    return _rendered(template, package, styles=sheets, scripts=programs, policy=policy, **values)


def section_page(head: Head, sections: Iterable[Section], *, scripts: Sequence[str] = ()) -> str:
    """Return a page of sections, with links to each; it needs no other file.

    Args:
        scripts: Texts of scripts after the shared one.
    """
    found = list(sections)
    return page("sections.html", "irtools.pages", scripts=scripts, head=head, sections=found)


def fragment(template: str, package: str, **values: Any) -> str:
    """Return a part of a page that stands by itself, with the shared style and without scripts."""
    return _rendered(template, package, style=asset("base.css"), **values)


def _rendered(template: str, package: str, **values: Any) -> str:
    return templates(package).get_template(template).render(**values)


def _runs(blocks: Iterable[Block]) -> list[list[Block]]:
    """Return blocks in rows: what is narrow stands next to each other, all else by itself."""
    rows: list[list[Block]] = []
    for block in blocks:
        if rows and block.is_narrow and rows[-1][-1].is_narrow:
            rows[-1].append(block)
        else:
            rows.append([block])
    return rows


def _base64(text: str) -> Markup:
    """Return text that is base64 as it is, however long; anything else as nothing."""
    from markupsafe import Markup

    return Markup(text if re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", text) else "")


def _shown(value: Any) -> Any:
    """Make text harmless before it is escaped; what is markup already stays."""
    return printable(value, _LIMIT) if isinstance(value, str) and _is_plain(value) else value


def _is_plain(value: str) -> bool:
    return not hasattr(value, "__html__")
