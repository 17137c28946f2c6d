"""What a page is made of, and the policy that lets a browser load nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from importlib import resources

__all__ = ["asset", "content_policy", "digest"]


@functools.cache
def asset(name: str, package: str = "irtools.pages") -> str:
    """Return the text of a style sheet or script.

    Args:
        name: A file in the folder `assets` of the package.
        package: The package that has it.
    """
    return (resources.files(package) / "assets" / name).read_text(encoding="utf-8").strip()


def digest(text: str) -> str:
    """Return the source expression that allows an inline style or script (`sha256-..`)."""
    found = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(found).decode()}"


def content_policy(styles: Sequence[str], scripts: Sequence[str], **more: str) -> str:
    """Return a Content-Security-Policy (W3C CSP level 3) that allows some inline texts alone.

    Names that come from a model are escaped; should one get through nevertheless, the browser runs
    no script of it, loads nothing and sends nothing.

    Args:
        styles: Texts of the style elements.
        scripts: Texts of the script elements.
        more: Further directives, `_` for `-` (`connect_src="'self'"`).
    """
    directives = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": _hashes(styles),
        "script-src": _hashes(scripts),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    directives |= {name.replace("_", "-"): value for name, value in more.items()}
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def _hashes(texts: Sequence[str]) -> str:
    return " ".join(f"'{digest(text)}'" for text in texts) or "'none'"
