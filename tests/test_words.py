"""Docstrings, comments, messages and documentation are written in plain technical English."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("irtools", "passes", "frontends", "backends", "benchmarks", "examples", "tests", "docs")

_COMPARED = "(?:longer|larger|smaller|higher|lower|better|worse|faster|slower|more|less|other)"
PLAIN = {
    r"beside": "next to, with, compared with",
    r"(?<!leave )(?<!leaves )(?<!left )(?<!head )behind": "after",
    rf"(?<!there )(?:is|was) no (?!{_COMPARED}\b)\S+": "is not a",
    r"are no (?:multiples?|numbers?|finite|whole|padding)": "are not",
    r"tells|(?:is|are|was|were|unless) told(?! apart)": "reports, shows, given",
    r"brings|brought": "provides, comes with, is moved",
    r"(?:draws?|drawn) back": "rolled back",
    r"(?:hand|hands|handed) (?:it |them )?on": "pass on, output",
    r"nobody|somebody": "no other node, another node, no one, someone",
    r"what (?:\w+ )+(?:is|are) worth": "score, gain",
    r"in turns": "alternating, alternately",
    r"makeshift": "rough",
    r"as need be": "where necessary",
    r"of (?:its|their) own accord": "by default, automatically",
    r"in a way (?:nobody|no one) foresaw": "unexpectedly",
    r"for want of": "without, for lack of",
    r"of no account": "ignored",
    r"anew": "again",
    r"whoever": "the caller, the process that",
    r"lets? go of|letting go": "release",
}
"""Idiom that costs a reader a second, as regular expressions of whole words, and what to write."""

_EACH = {
    plain: re.compile(rf"\b(?:{idiom})\b".replace(" ", r"\s"), re.IGNORECASE)
    for idiom, plain in PLAIN.items()
}
_ANY = re.compile("|".join(pattern.pattern for pattern in _EACH.values()), re.IGNORECASE)
_CODE = re.compile(r"`[^`\n]*`")
_BETWEEN_WORDS = re.compile(r"[\s#]+")


@pytest.mark.parametrize("room", [*ROOMS, "."])
def test_texts_are_plain_english(room: str) -> None:
    """What a reader sees; names in code are not looked at."""
    files = list(_files(room))
    assert files
    faults = [fault for path in files for fault in _faults(path)]
    assert not faults, "plain words, please:\n" + "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("weights in a file\n    # beside the model", "next to, with, compared with"),
        ("the Add behind it", "after"),
        ("'x' is no number", "is not a"),
        ("which is\n    no match", "is not a"),
        ("weights that somebody else reads", PLAIN["nobody|somebody"]),
        ("What a head is worth", "score, gain"),
        ("timed in\n    turns", "alternating, alternately"),
    ],
)
def test_idiom_is_seen(text: str, plain: str) -> None:
    """Across lines and comment signs, too."""
    assert [found for _, found in _idioms(text)] == [plain]


@pytest.mark.parametrize(
    "text",
    [
        "there is no GPU",
        "it is no longer a graph output",
        "the result is no larger",
        "nothing is left behind",
        "`beside` is a name in code",
        "could not be told apart",
        "several are merged in turn",
        "not worth a measurement",
    ],
)
def test_plain_english_is_left_alone(text: str) -> None:
    """Phrases that look like idiom, and are not."""
    assert list(_idioms(text)) == []


def test_only_texts_of_a_program_are_read(tmp_path: Path) -> None:
    """Strings and comments, with their lines; not the names around them."""
    source = (
        'beside = "plain"\n'
        "told = f'{beside} is no {told}'\n"
        "def f():\n"
        '    """First.\n\n    The Add behind it.\n    """\n'
        "    return beside  # anew\n"
    )
    path = tmp_path / "module.py"
    path.write_text(source)
    assert sorted(fault.partition(" ")[0] for fault in _faults(path)) == [
        f"{path}:{line}:" for line in (2, 6, 8)
    ]


def _files(room: str) -> Iterator[Path]:
    if room == ".":
        yield from (path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md")
        return
    for path in sorted((ROOT / room).rglob("*")):
        if path.suffix in (".py", ".md") and path != Path(__file__).resolve():
            yield path


def _faults(path: Path) -> Iterator[str]:
    """Yield a line for every idiom in a file."""
    source = path.read_text(encoding="utf-8")
    if not _ANY.search(_BETWEEN_WORDS.sub(" ", source)):
        return
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    texts = _texts(source) if path.suffix == ".py" else [(1, source)]
    for line, text in texts:
        for offset, plain in _idioms(text):
            yield f"{shown}:{line + offset}: write {plain}"


def _texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield strings and blocks of comments of a program, each with its first line."""
    parts: set[ast.AST] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts.update(node.values)
            yield node.lineno, "".join(_part(value) for value in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts:
            yield node.lineno, node.value
    begin, block = 0, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            if block and line == begin + block.count("\n") + 1:
                block += f"\n{token.string}"
                continue
            yield begin, block
            begin, block = line, token.string
    yield begin, block


def _part(value: ast.expr) -> str:
    return str(value.value) if isinstance(value, ast.Constant) else "x"


def _idioms(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of line breaks before each idiom, and the plain words for it."""
    text = _BETWEEN_WORDS.sub(_as_one, _CODE.sub("x", text))
    for plain, pattern in _EACH.items():
        for found in pattern.finditer(text):
            yield text.count("\n", 0, found.start()), plain


def _as_one(between: re.Match[str]) -> str:
    """One character between words of a paragraph; all line breaks are kept."""
    lines = between[0].count("\n")
    return "." * (lines > 1) + "\n" * lines or " "
