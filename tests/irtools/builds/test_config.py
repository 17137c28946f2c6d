"""`irc.toml`: what is read, and what is said of what cannot be."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irtools.builds.config import read_config
from irtools.builds.matrix import combinations
from irtools.builds.places import KeyPath, Place, key_places
from irtools.builds.settings import metric_of
from irtools.builds.tables import GoalTable, config_schema
from irtools.errors import FileError, UsageError
from irtools.goals import KINDS

_BASE = '[models.a]\nsource = "a.onnx"\n[pipelines]\nfast = "O3"\n'


def _read(tmp_path: Path, text: str):
    path = tmp_path / "irc.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(path)


def test_a_task_as_metric_is_looked_for_next_to_the_file(tmp_path: Path) -> None:
    text = _BASE.replace('"a.onnx"', '"a.onnx"\nmetric = "lm-eval:tasks/facts:acc_norm"')
    (one,) = combinations(_read(tmp_path, text))
    assert metric_of(one) == f"lm-eval:{tmp_path}/tasks/facts:acc_norm"
    assert one.evaluate == "lm-eval:tasks/facts"
    assert one.located(one.evaluate) == f"lm-eval:{tmp_path}/tasks/facts"
    (plain,) = combinations(_read(tmp_path, _BASE.replace('"a.onnx"', '"a.onnx"\nmetric = "f1"')))
    assert (metric_of(plain), plain.evaluate) == ("f1", None)


def test_what_a_file_says(tmp_path: Path) -> None:
    config = _read(
        tmp_path,
        """
[models.a]
source = "a.onnx"
data = "main"
fix = { sequence = 64 }
[models.b]
source = "b"
data = "other"
pipelines = ["small"]
targets = ["old"]
[data.main]
evaluate = "test.npz"
[data.other]
[pipelines]
fast = "O2"
[pipelines.small]
passes = "auto"
[pipelines.small.goals]
max-size = "30%"
max-drop = ["2%", "f1-macro=3%"]
[targets]
old = "ort-cpu:isa=avx2"
new = "ort-cpu:isa=vnni"
[goals]
max-drop = 0.01
speedup = 2
min-metric = { accuracy = 0.9, f1-macro = "0.99x" }
""",
    )
    found = combinations(config)
    assert [one.name for one in found] == [
        "a/fast/old",
        "a/fast/new",
        "a/small/old",
        "a/small/new",
        "b/small/old",
    ]
    first, *_, last = found
    assert str(first.goals) == (
        "max-drop=1%,min-metric=accuracy=90%,min-metric=f1-macro=0.99x,speedup=2"
    )
    assert str(last.goals) == "max-drop=2%,max-drop=f1-macro=3%,max-size=0.3x"
    assert last.is_searched and not first.is_searched
    assert first.data_table.evaluate == "test.npz" and last.data_table.evaluate is None
    assert first.located("a.onnx") == str(tmp_path / "a.onnx")
    assert first.located("synthetic") == "synthetic" and first.located("m:f") == "m:f"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            '[models.a]\n  sorce = "x"',
            "2:3: there is no key 'sorce' in [models.a]; did you mean 's",
        ),
        (_BASE + "[model.b]", "5:2: there is no key 'model'; did you mean 'models'?"),
        (_BASE + "[budgets]\nspeedup = 2", "5:2: there is no key 'budgets'; "),
        ("[models.a\n", "1:10: not TOML: expected ']'"),
        (
            _BASE + "[goals]\n[models.b]\nsource = 'x'\n[models.b]",
            "8:10: the table [models.b] is there twice: join the two",
        ),
        (_BASE + "[goals]\nspeedup = 2\nspeedup = 3\n", "7:12: the key before this place is there"),
        ('[models.a]\ndata = "x"', "1:9: models.a: it has no source"),
        ("[models.a]\nsource = 3", "2:1: models.a.source: expected a string, got an integer"),
        (
            _BASE + "[models.b]\nsource='x'\nopset = 3",
            "7:1: models.b.opset: expected an integer >= 7",
        ),
        (_BASE + "[goals]\nmax-drop = 'all'", "6:1: goals.max-drop: max-drop is 'all', exp"),
        (_BASE + "[goals]\nmax-drop = 3", "6:1: goals.max-drop: max-drop is 300%, expected 0 to 1"),
        (
            _BASE + "[goals]\nmax-size = '1%'\nspedup = 2",
            "7:1: there is no key 'spedup' in [goals]; d",
        ),
        (
            _BASE + "[goals]\nspeedup = true",
            "6:1: goals.speedup: expected a number or a string, got t",
        ),
        (
            _BASE + "[goals]\nmax-latency = 3",
            "6:1: goals.max-latency: max-latency is '3', expected",
        ),
        (
            _BASE + "[goals]\nmax-drop = { f1-macro = '5' }",
            "6:1: goals.max-drop: max-drop is 500%, expected 0 to 1",
        ),
        (
            _BASE + "[pipelines.x]\npasses = 'auto'\ngoals = { speedup = 1 }",
            "7:11: pipelines.x.goals.speedup: speedup is 1, expected more than 1",
        ),
        (
            _BASE + "[pipelines.x]\npasses = 'auto'\n[pipelines.x.goals]\n sped-up = 1",
            "8:2: there is no key 'sped-up' in [pipelines.x.goals]; did you mean 'speedup'?",
        ),
        (
            _BASE + "[goals]\nmax-size = '2MB'\nmax-memory = '9MB'\n[measuring]\nbench = 'none'",
            "7:1: goals.max-memory: max-memory needs the benchmark, and [measuring] has bench = ",
        ),
        (
            _BASE + "[pipelines.x]\npasses='O1'\ngoals.speedup=2\n[measuring]\nbench = 'none'",
            "7:7: pipelines.x.goals.speedup: speedup needs the benchmark",
        ),
        (_BASE + "[measuring]\neffort = 'x'", "6:1: measuring.effort: effort is "),
        (_BASE + '[data."a b"]', "5:7: 'a b' is not a name of at most 100 letters"),
        (_BASE + "[pipelines.x]\npases = 'O1'", "6:1: there is no key 'pases' in [pipelines.x]"),
        (
            _BASE + "[models.b]\nsource='b'\npipelines=['fst']",
            "7:1: models.b.pipelines: there is no",
        ),
        (
            _BASE + "[models.b]\nsource='b'\ntargets=[]",
            "7:1: models.b.targets: names none: leave it out",
        ),
        (
            _BASE + "[models.b]\nsource='b'\npipelines=['fast', 'fast']",
            "7:1: models.b.pipelines: names fast twice",
        ),
        (f"[models.{'a' * 101}]\nsource='a'", "1:9: 'aaaa"),
        ("[models.a]\nsource=''", "2:1: models.a.source: expected a string of length >= 1"),
        (
            _BASE + '[data.x]\nevaluate="a\\u0000b"',
            "6:1: data.x.evaluate: holds a NUL character",
        ),
        (
            _BASE + "[models.b]\nsource='b'\nlogits='first'",
            "7:1: models.b.logits: it is 'first', expected all or last",
        ),
        (
            _BASE + "[measuring]\nbench='always'",
            "6:1: measuring.bench: it is 'always', expected each or end or last or none",
        ),
        (_BASE + "[measuring]\nbatch=4", "6:1: measuring.batch: expected an array, got an int"),
        ("goals='1%'\n" + _BASE, "1:1: goals: expected a table, got a string"),
        (_BASE + f"[measuring]\nseed={'9' * 5000}", " a number has too many digits"),
        (_BASE + f"[x]\ny={'[' * 5000}{']' * 5000}", " arrays or tables within each other are"),
        (_BASE + "[data.x]\n[data.y]", "1:9: models.a: says not which data it takes"),
        (
            '[models]\na = {source = "a", data = "z"}\n[pipelines]\nq="O1"',
            "2:20: models.a.data: th",
        ),
        ("models = 3", "1:1: models: expected tables [models.NAME]"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        _read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'irc.toml'}:{line}")
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="irc init MODEL"):
        read_config(tmp_path / "irc.toml")
    with pytest.raises(UsageError, match=r"has no pipelines: expected \[pipelines.NAME\]"):
        _read(tmp_path, '[models.a]\nsource = "a"')
    (tmp_path / "irc.toml").write_bytes(_BASE.encode() + b"# \xe4\n")
    with pytest.raises(UsageError, match=r"irc.toml:5: not a text file in UTF-8"):
        read_config(tmp_path / "irc.toml")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_editors_of_windows_write_it_too(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "irc.toml"
    path.write_bytes(start + _BASE.replace("\n", "\r\n").encode())
    assert read_config(path).models["a"].source == "a.onnx"
    path.write_bytes(start + _BASE.replace("source", "sorce").replace("\n", "\r\n").encode())
    with pytest.raises(UsageError, match=r"irc.toml:2:1: there is no key 'sorce'"):
        read_config(path)


def _paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from _paths(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _paths(item, (*path, number))


def test_where_keys_are() -> None:
    text = '''# a comment [x]
a = "text with = and # [no]"
"b c".d = 1.5e3   # dotted
[t]
e = """
f = 1
"""
g = [ 1, { h = 2 }, [ "x" ],
  { i = [ {j = 3} ] },
]
[[t.many]]
k = 1979-05-27 07:32:00
[[t.many]]
k = 'l = m'
[t.many.inner]
n = { o.p = "}", q = ']' }
'''
    places = key_places(text)
    assert set(_paths(tomllib.loads(text))) <= set(places)
    assert places["a",] == Place(2, 1) and places["b c", "d"] == Place(3, 7)
    assert places["t", "g", 1, "h"] == Place(8, 12) and ("f",) not in places
    assert places["t", "many", 1, "k"] == Place(14, 1)
    assert places["t", "many", 1, "inner", "n", "o", "p"] == Place(16, 9)


_KEYS = st.text("ab-_1", min_size=1, max_size=4)
_VALUES = st.recursive(
    st.one_of(st.integers(), st.text("a=#[]{},.\"'\\\n ", max_size=6), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=3)),
    max_leaves=6,
)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@settings(deadline=None)
@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_every_key_of_every_document_has_its_place(document: dict[str, Any]) -> None:
    text = "\n".join(f"{key} = {_toml(value)}" for key, value in document.items())
    assert tomllib.loads(text) == document
    places = key_places(text)
    lines = text.split("\n")
    for path in _paths(document):
        place = places[path]
        assert lines[place.line - 1][place.column - 1 :].startswith(str(path[-1]))


def test_the_schema_is_that_of_the_reader(tmp_path: Path) -> None:
    import jsonschema

    schema = config_schema()
    validator = jsonschema.Draft202012Validator(schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator.validate(tomllib.loads(_BASE + '[goals]\nmax-drop = "1%"\nspeedup = 2'))
    for wrong in ("[models.b]\nsorce = 'x'", "[budgets]", "[measuring]\nseed = -1"):
        assert not validator.is_valid(tomllib.loads(_BASE + wrong))
    model = schema["$defs"]["ModelTable"]["properties"]
    assert model["with-past"]["description"] == "As --with-past."
    assert all(
        "description" in p for t in schema["$defs"].values() for p in t["properties"].values()
    )


def test_every_goal_has_its_key() -> None:
    assert [field.encode_name for field in msgspec.structs.fields(GoalTable)] == list(KINDS)


def test_the_published_schema_is_current() -> None:
    published = Path(__file__).parents[3] / "docs" / "irc.schema.json"
    current = json.loads(json.dumps(config_schema()))
    assert json.loads(published.read_text(encoding="utf-8")) == current, (
        "run: irc build --schema > docs/irc.schema.json"
    )
