"""Web pages: templates, one style, charts as SVG, and a content policy without exceptions."""

from __future__ import annotations

from irtools.pages.engine import fragment, page, templates
from irtools.pages.policy import asset, content_policy, digest

__all__ = ["asset", "content_policy", "digest", "fragment", "page", "templates"]
