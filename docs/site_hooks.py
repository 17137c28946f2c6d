"""What the site changes of the pages, which are written to be read in the repository as well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

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
