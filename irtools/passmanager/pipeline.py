"""Pipelines: an ordered list of passes, as text, Python objects or TOML.

Text form: `name:key=value:key=value`, joined by commas. It needs no quoting in a shell: other
characters are percent-encoded in values, and lists are joined by `+`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from irtools.passmanager.base import Pass
from irtools.passmanager.options import format_options
from irtools.passmanager.requirements import check_requires
from irtools.passmanager.syntax import parse_passes, parse_toml, pass_text

__all__ = ["Pipeline"]


@dataclass(frozen=True, init=False)
class Pipeline:
    """Passes in the order in which they run.

    Args:
        passes: Pass objects, pipeline texts or other pipelines, in order.
    """

    passes: tuple[Pass, ...]

    def __init__(self, *passes: Pass | str | Pipeline) -> None:
        flat: list[Pass] = []
        for item in passes:
            match item:
                case str():
                    flat.extend(Pipeline.parse(item))
                case Pipeline():
                    flat.extend(item.passes)
                case _:
                    check_requires(type(item))
                    flat.append(item)
        object.__setattr__(self, "passes", tuple(flat))

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def __str__(self) -> str:
        return ",".join(pass_text(p) for p in self.passes)

    @classmethod
    def parse(cls, text: str) -> Pipeline:
        """Read pipeline text. `Pipeline.parse(str(p)) == p` for every pipeline.

        Raises:
            PipelineSyntaxError: The text does not parse, or names a pass or an option that does
                not exist, or gives a value that an option does not take. Says at which column.
        """
        return cls(*parse_passes(text))

    @classmethod
    def from_toml(cls, text: str) -> Pipeline:
        """Read a TOML document with one `[[pass]]` table per pass: `name` and its options.

        Raises:
            PipelineSyntaxError: The document is not such a document.
        """
        return cls(*parse_toml(text))

    def to_toml(self) -> str:
        """Write the pipeline as TOML. `from_toml` reads it back equal."""
        tables = []
        for p in self.passes:
            lines = ["[[pass]]", f'name = "{p.name}"']
            for item in format_options(p).split(":")[1:]:
                key, _, value = item.partition("=")
                lines.append(f'{key} = "{value}"')
            tables.append("\n".join(lines) + "\n")
        return "\n".join(tables)
