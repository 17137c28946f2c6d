"""Chat templates: how a conversation becomes the text that a model was trained on.

A template comes with a model and is a program in Jinja. It runs in Jinja's sandbox, which lets it
change nothing and reach nothing but what it is given, and here only so long (`bounded_jinja`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from irtools.errors import DataError, FileError, MissingExtraError
from irtools.files import read_settings
from irtools.words import one_line

__all__ = ["ChatTemplate", "read_chat_template"]

_FILE, _SETTINGS = "chat_template.jinja", "tokenizer_config.json"
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class ChatTemplate:
    """A template and what it may name.

    Attributes:
        text: In Jinja.
        name: Where it comes from, for messages.
        tokens: Special tokens by the names that templates use (`eos_token`).
    """

    text: str
    name: str
    tokens: Mapping[str, str]

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the text of a conversation, up to where the model answers.

        Args:
            messages: `role` and `content` each.

        Raises:
            DataError: The template does not parse, fails, or does what it must not, or too much.
            MissingExtraError: Jinja is not installed.
        """
        jinja2 = _jinja2()
        from irtools.data.bounded_jinja import BoundedEnvironment

        sandbox = BoundedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        sandbox.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        try:
            text: str = sandbox.from_string(self.text).render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=True,
                **self.tokens,
            )
        except jinja2.TemplateSyntaxError as error:
            raise DataError(
                f"{self.name}, line {error.lineno}, is not a template: {one_line(error)}"
            ) from error
        except Exception as error:  # Whatever the program does: also Python that does not compile.
            raise DataError(
                f"{self.name} fails: {one_line(error) or type(error).__name__}; mend it, or "
                "continue the text as it is (--raw)"
            ) from error
        return text


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """Return the template of a folder's tokenizer; None where it has none.

    It is `chat_template.jinja`, or stands in `tokenizer_config.json`; of several there, the one
    that is called `default`.

    Raises:
        FileError: A file cannot be read, or is not JSON, or holds something else than a template.
    """
    settings = read_settings(folder / _SETTINGS)
    tokens = {name: _token(settings[name]) for name in _SPECIAL if settings.get(name)}
    path = folder / _FILE
    if path.is_file():
        try:
            return ChatTemplate(path.read_text(encoding="utf-8"), str(path), tokens)
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"cannot read {path}: {one_line(error)}") from error
    text = _default(settings.get("chat_template"), folder / _SETTINGS)
    if text is None:
        return None
    return ChatTemplate(text, f"chat_template in {folder / _SETTINGS}", tokens)


def _default(found: object, path: Path) -> str | None:
    """Return a template, or of several by name the default one; None where there is none.

    Raises:
        FileError: It is something else, or none of them is the default one.
    """
    if found is None or isinstance(found, str):
        return found
    entries = found if isinstance(found, list) else [found]
    named = {
        entry["name"]: entry.get("template")
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("name"), str)
    }
    default = named.get("default")
    if not isinstance(default, str):
        there = ", ".join(repr(name) for name in named) or type(found).__name__
        raise FileError(
            f"chat_template in {path} is {there}: expected a text in Jinja, or a list with one "
            "called 'default'; mend it, or continue the text as it is (--raw)"
        )
    return default


def _token(entry: Any) -> str:
    """Return a special token, which some files write with its settings."""
    return str(entry.get("content", "")) if isinstance(entry, dict) else str(entry)


def _refuse(message: str) -> NoReturn:
    raise _jinja2().TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _jinja2() -> ModuleType:
    try:
        import jinja2
        import jinja2.ext
    except ModuleNotFoundError as error:
        raise MissingExtraError("a chat template", "chat") from error
    return jinja2
