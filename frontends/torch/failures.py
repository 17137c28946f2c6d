"""Why torch could not export a module, in one line."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator

from irtools.errors import IrtoolsError, UnsupportedError

__all__ = ["LIBRARY_FAILURES", "explain", "first_line", "translate_errors"]

LIBRARY_FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError),
    *(LookupError, NameError, OSError, RuntimeError, SyntaxError, TypeError, ValueError),
)
"""What torch and transformers raise about networks, configs and files that they cannot take."""

_USER_CODE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)')
_MEANING = {
    "GuardOnDataDependentSymNode": "a branch or a size depends on the values of a tensor: ",
}
_LIBRARY = ("/torch/", "/onnxscript/", "/onnx_ir/", "<")


def explain(error: BaseException) -> str:
    """Return the reason of a failed export, and where in the module's code it arose."""
    cause = _innermost(error)
    place = _place(cause) or _place_in_text(_whole_text(error)) or _place_of_node(error)
    kind = type(cause).__name__
    told = f"{kind}: {_MEANING.get(kind, '')}{first_line(cause)}"
    return told + (f" (at {place})" if place else "")


@contextlib.contextmanager
def translate_errors(where: str) -> Iterator[None]:
    """Let the failure of a network on example inputs be one that a person can read.

    Raises:
        UnsupportedError: It does not run; names the reason and the place.
    """
    try:
        yield
    except IrtoolsError:
        raise
    except LIBRARY_FAILURES as error:
        raise UnsupportedError(
            f"{where} does not run on example inputs: {explain(error)}"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of a message that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line and not _is_frame(line)), "no message")


def _is_frame(line: str) -> bool:
    # torch.onnx draws a frame of box characters around its own summary.
    return line.startswith(("╭", "│", "╰", "-----", "====")) or line in ("...",)


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _whole_text(error: BaseException | None) -> str:
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__
    return "\n".join(texts)


def _place(error: BaseException) -> str:
    """The last line of code that is neither torch's nor ours."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if _is_foreign(frame.filename):
            return f"{frame.filename}:{frame.lineno} in {frame.name}"
    return ""


def _place_in_text(text: str) -> str:
    """The same from the traceback of traced code, which torch writes into its message."""
    found = [m for m in _USER_CODE.finditer(text) if _is_foreign(m["file"])]
    return f"{found[-1]['file']}:{found[-1]['line']} in {found[-1]['name']}" if found else ""


def _place_of_node(error: BaseException | None) -> str:
    """The same of an operator that has no translation: torch's message names its node alone."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            node = frame.f_locals.get("node")
            found = _place_in_text(str(getattr(node, "meta", {}).get("stack_trace", "")))
            if found:
                return found
        error = error.__cause__
    return ""


def _is_foreign(file: str) -> bool:
    ours = "/frontends/" in file or "/irtools/" in file
    return not ours and not any(part in file for part in _LIBRARY)
