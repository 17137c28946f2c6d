"""Chat templates run in a sandbox, and fail in one line."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from irtools.data import ChatTemplate, read_chat_template
from irtools.errors import DataError, FileError

pytestmark = pytest.mark.chat

_NINES = "387420489x"
_ASKED = [{"role": "user", "content": "Hi"}]
_TEXT = (
    "{% for message in messages %}\n<{{ message.role }}>{{ message.content }}{{ eos_token }}\n"
    "{% endfor %}\n{% if add_generation_prompt %}<assistant>{% endif %}"
)


def _template(text: str) -> ChatTemplate:
    return ChatTemplate(text, "chat.jinja", {"eos_token": "</s>"})


def test_a_conversation_is_written_up_to_the_answer() -> None:
    assert _template(_TEXT).render(_ASKED) == "<user>Hi</s>\n<assistant>"


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ range(10 ** 9) | list }}",
        "{{ raise_exception('only one\nturn') }}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content + 1 }}",
        "{% include 'other' %}",
        # More blocks than Python nests: what Jinja makes of it does not compile.
        "{% for a in messages %}" * 30 + "{% endfor %}" * 30,
        "{{ namespace(1) }}",
    ],
)
def test_what_a_template_must_not_do_is_one_line(text: str) -> None:
    with pytest.raises(DataError, match=r"^chat.jinja fails: .") as caught:
        _template(text).render(_ASKED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        # Each of these would run for hours, or fill the memory.
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) ~ m(n - 1) }}{% endif %}{% endmacro %}{{ m(99) }}",
        "{% for a in [1, 2] recursive %}{{ loop(99999 * [1]) }}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = n.s ~ n.s %}"
        "{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = n.s + n.s %}"
        "{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s %}{{ n.s }}{{ n.s }}"
        "{% endset %}{% endfor %}",
        "{% set n = namespace(s=1) %}{% for a in range(99) %}{% set n.s = [n.s, n.s] %}"
        "{% endfor %}",
        "{% set n = namespace(s='aa') %}{% for a in range(99) %}"
        "{% set n.s = n.s.replace('a', 'aa') %}{% endfor %}",
        "{% set n = namespace(s='aa') %}{% for a in range(99) %}"
        "{% set n.s = n.s | replace('a', 'aa') %}{% endfor %}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ 10 ** 10 * [1] }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'a' | center(10 ** 10) }}",
        "{{ 'a'.ljust(10 ** 10) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%*d' % (10 ** 10, 1) }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ '{:9999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10 ** 10) }}",
        "{{ range(99999) | map('string') | join('a' * 99999) }}",
        "{{ [['a' * 99999] * 999] * 9999 }}",
        "{{ [1] | batch(10 ** 10, 0) }}",
        "{{ lipsum(10 ** 9) }}",
    ],
)
def test_a_template_without_an_end_is_one_line(text: str) -> None:
    found: list[str] = []

    def render() -> None:
        with pytest.raises(DataError, match=r"^chat.jinja fails: .*\(--raw\)$") as caught:
            _template(text).render(_ASKED)
        found.append(str(caught.value))

    thread = threading.Thread(target=render)  # No signal reaches it.
    thread.start()
    thread.join()
    assert len(found) == 1 and "\n" not in found[0]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{% for m in messages %}{{ loop.index }}/{{ loop.length }}{% endfor %}", "1/1"),
        ("{{ messages | map(attribute='content') | join(', ') }}", "Hi"),
        ("{{ (messages | selectattr('role', 'in', ['user']) | list)[0].content[::-1] }}", "iH"),
        ("{% for a, b in {'x': 1, 'y': 2}.items() %}{{ a ~ b }}{% endfor %}", "x1y2"),
        ("{% filter upper %}a{{ messages[0].content | replace('i', 'o') }}{% endfilter %}", "AHO"),
        ("{% set n = namespace(k=0) %}{% for a in 'abc' %}{% set n.k = n.k + 1 %}{% endfor %}", ""),
        ("{{ '%s-%03d' % ('a', 7) }}{{ '{:>4}'.format('b') }}{{ 3 * 'c' }}", "a-007   bccc"),
        ("{{ messages | tojson(indent=2) | length > 9 and 'Hi' in messages[0].values() }}", "True"),
        (
            "{% macro m(t) %}{{ t }}{{ caller() }}{% endmacro %}{% call m(9**9) %}x{% endcall %}",
            _NINES,
        ),
        ("{{ messages[0].content.split('i')[0] is string }}{{ eos_token is defined }}", "TrueTrue"),
    ],
)
def test_the_bound_changes_nothing_else(text: str, wanted: str) -> None:
    assert _template(text).render(_ASKED) == wanted


def test_long_texts_are_far_from_the_bound() -> None:
    text = "{% for m in messages %}{{ m.content | trim | replace('ab', 'abc') }}{% endfor %}" * 5
    asked = [{"role": "user", "content": "ab" * 200_000}] * 2
    assert len(_template(text).render(asked)) == 10 * 600_000


def test_a_template_that_does_not_parse_names_its_line() -> None:
    with pytest.raises(DataError, match=r"^chat.jinja, line 2, is not a template: "):
        _template("a\n{% for %}").render(_ASKED)


def test_where_a_template_is_found(tmp_path: Path) -> None:
    assert read_chat_template(tmp_path) is None
    settings = {"chat_template": "old {{ bos_token }}", "bos_token": {"content": "<s>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = read_chat_template(tmp_path)
    assert found is not None and found.render([]) == "old <s>"
    named = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    found = read_chat_template(tmp_path)
    assert found is not None and found.render([]) == "yes"
    (tmp_path / "chat_template.jinja").write_text("own file")
    found = read_chat_template(tmp_path)
    assert found is not None and found.render([]) == "own file"


def test_settings_that_are_not_json_are_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(FileError, match=r"cannot read .*tokenizer_config.json"):
        read_chat_template(tmp_path)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([{"name": "tools", "template": "a"}, {"name": "rag", "template": "b"}], "'tools', 'rag'"),
        ([{"name": "default"}], "'default'"),
        (["text"], "list"),
        ({"default": "text"}, "dict"),
        (7, "int"),
    ],
)
def test_settings_without_a_default_template_are_named(
    tmp_path: Path, found: object, message: str
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": found}))
    with pytest.raises(FileError, match=rf"is {message}: expected a text in Jinja") as caught:
        read_chat_template(tmp_path)
    assert "\n" not in str(caught.value)
