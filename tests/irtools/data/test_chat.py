"""Chat templates run in a sandbox, and fail in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irtools.data import ChatTemplate, read_chat_template
from irtools.errors import DataError, FileError

pytestmark = pytest.mark.chat

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
