"""What a section of a page is made of. `blocks.html` has a macro for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from irtools.pages.charts.canvas import Chart

__all__ = [
    "Block",
    "Commands",
    "Drawing",
    "Facts",
    "Folded",
    "Gallery",
    "Head",
    "HeadLine",
    "Hint",
    "Lead",
    "Light",
    "Lights",
    "Paragraph",
    "Picker",
    "Picture",
    "Remarks",
    "Section",
    "Table",
    "Tree",
    "TreeRow",
]


class Block:
    """A part of a section.

    Attributes:
        kind: Name of its macro.
        is_narrow: Where there is room, it stands next to others that are narrow.
    """

    kind: ClassVar[str]
    is_narrow: ClassVar[bool] = False


@dataclass(frozen=True)
class Lead(Block):
    """The sentence that a reader in a hurry reads."""

    kind: ClassVar[str] = "lead"
    text: str


@dataclass(frozen=True)
class Paragraph(Block):
    """A sentence or two."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Hint(Block):
    """A sentence on what is missing here, and what would fill it."""

    kind: ClassVar[str] = "hint"
    text: str


@dataclass(frozen=True)
class Light:
    """A verdict on one thing.

    Attributes:
        level: `good`, `warning`, `bad` or `note`: its colour.
        word: The same in a word, for those who see no colours.
        name: What it is about.
        text: What was found.
    """

    level: str
    word: str
    name: str
    text: str = ""


@dataclass(frozen=True)
class Lights(Block):
    """Verdicts, one below the other."""

    kind: ClassVar[str] = "lights"
    lights: tuple[Light, ...]


@dataclass(frozen=True)
class Commands(Block):
    """Lines for a shell, each after what it does.

    Attributes:
        title: Above them.
        lines: What it does, and the line; empty where there is nothing to run.
    """

    kind: ClassVar[str] = "commands"
    title: str
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Facts(Block):
    """Names and texts; those without a text are left out."""

    kind: ClassVar[str] = "facts"
    is_narrow: ClassVar[bool] = True
    title: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Remarks(Block):
    """A list of sentences."""

    kind: ClassVar[str] = "remarks"
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table(Block):
    """A table of texts.

    Attributes:
        caption: What it shows.
        headings: Of its columns.
        rows: Texts of the cells, row by row.
        texts: Headings of columns of prose, which wrap.
        code: Headings of columns of which each cell can be copied.
        off: Numbers of the rows that do not count.
        links: Where the first cell of each row leads to, relative to the page; empty: nowhere.
    """

    kind: ClassVar[str] = "table"
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Sequence[str] = ()
    code: Sequence[str] = ()
    off: Sequence[int] = ()
    links: Sequence[str] = ()


@dataclass(frozen=True)
class Drawing(Block):
    """A chart."""

    kind: ClassVar[str] = "drawing"
    is_narrow: ClassVar[bool] = True
    chart: Chart


@dataclass(frozen=True)
class Picture:
    """A small picture.

    Attributes:
        png: A PNG file in base64.
        name: What it is, for those who do not see it.
        text: Below it.
    """

    png: str
    name: str
    text: str


@dataclass(frozen=True)
class Gallery(Block):
    """Pictures next to each other."""

    kind: ClassVar[str] = "gallery"
    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Folded(Block):
    """Blocks that a reader opens."""

    kind: ClassVar[str] = "folded"
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Picker(Block):
    """A ranking of things of which some can be picked; a script makes a line of them.

    Attributes:
        table: The ranking; its first column has the names.
        before: The line before the names.
        after: The line after them.
        picked: Names that are picked at first.
    """

    kind: ClassVar[str] = "picker"
    table: Table
    before: str
    after: str
    picked: Sequence[str] = ()


@dataclass(frozen=True)
class TreeRow:
    """One thing with its parts.

    Attributes:
        name: Of the thing, as the last part of its full name.
        cells: Texts of the columns.
        parts: What it is made of.
    """

    name: str
    cells: tuple[str, ...]
    parts: tuple[TreeRow, ...] = ()


@dataclass(frozen=True)
class Tree(Block):
    """Things with their parts.

    Attributes:
        caption: What it shows.
        headings: Of the columns, that of the names first.
        rows: The things at the top.
    """

    kind: ClassVar[str] = "tree"
    caption: str
    headings: tuple[str, ...]
    rows: tuple[TreeRow, ...]


@dataclass(frozen=True)
class HeadLine:
    """A line below the heading of a page: a name in bold, code, then text."""

    text: str = ""
    code: str = ""
    name: str = ""


@dataclass(frozen=True)
class Head:
    """What stands around the sections of a page.

    Attributes:
        title: In the tab of a browser.
        heading: At the top.
        lines: Below the heading.
        footer: At the end.
        download: A JSON document in base64 that the page offers; empty: none.
        file: How it is called when it is downloaded.
    """

    title: str
    heading: str
    lines: tuple[HeadLine, ...]
    footer: str
    download: str = ""
    file: str = "report.json"


@dataclass(frozen=True)
class Section:
    """A part of a page that the navigation names.

    Attributes:
        key: For links to it.
        title: Its heading.
        blocks: What it holds.
    """

    key: str
    title: str
    blocks: tuple[Block, ...]
