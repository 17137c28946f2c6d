"""Write the floors of irtools into docs/architecture.md, from pyproject.toml and the docstrings.

python docs/make_architecture.py [--check]
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- floors: begin -->\n", "<!-- floors: end -->\n"


def main() -> int:
    """Write the page, or with `--check` compare it."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    made = f"{head}{BEGIN}{''.join(floors())}{END}{rest.split(END)[1]}"
    if "--check" in sys.argv[1:]:
        return int(made != text)
    PAGE.write_text(made, encoding="utf-8")
    return 0


def floors() -> Iterator[str]:
    """Yield the lines of the diagram, the highest floor first, and the rule of each room."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    levels: list[list[str]] = project["tool"]["irtools"]["floors"]
    yield "```mermaid\nflowchart TB\n"
    for number, rooms in reversed(list(enumerate(levels))):
        yield f'  f{number}["{", ".join(rooms)}"]\n'
        yield f"  f{number} --> f{number - 1}\n" if number else ""
    yield "```\n\n| floor | room | what it holds |\n| --- | --- | --- |\n"
    for number, rooms in reversed(list(enumerate(levels))):
        for room in rooms:
            if rule := rule_of(room):
                yield f"| {number} | `{room}` | {rule} |\n"


def rule_of(room: str) -> str:
    """Return the first line of a room's docstring."""
    base = ROOT / "irtools" / room
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if not path.exists():
        return ""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
