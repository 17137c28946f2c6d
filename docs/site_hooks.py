"""What the site changes of the pages, which are written to be read in the repository as well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_SHIM = "https://unpkg.com/iframe-worker/shim"
_OWN_SHIM = "assets/iframe-worker-1.0.4.js"
"""The theme loads it for searching from disk; the file is of the package iframe-worker (MIT)."""
_LINK = re.compile(r"\]\(((?:\.\./)+)([^)#]+)(#[^)]*)?\)")
_DRAWING = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Link files outside docs/ in the repository, and leave out drawings that need a library.

    Args:
        markdown: The text of the page.
        page: The page.
        config: The site's configuration.
    """
    docs = Path(config["docs_dir"])
    here = (docs / page.file.src_uri).parent

    def in_repository(match: re.Match[str]) -> str:
        file = (here / match[1] / match[2]).resolve()
        if file.is_relative_to(docs):
            return match[0]
        place = file.relative_to(docs.parent).as_posix()
        return f"]({config['repo_url']}/blob/main/{place}{match[3] or ''})"

    return _LINK.sub(in_repository, _DRAWING.sub("", markdown))


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Load what searching from disk needs from the site itself."""
    return output.replace(_SHIM, "../" * page.file.src_uri.count("/") + _OWN_SHIM)


def on_post_template(output_content: str, **_: Any) -> str:
    """As `on_post_page`, of the page for addresses that do not exist, whose links are absolute."""
    return output_content.replace(_SHIM, f"/{_OWN_SHIM}")
