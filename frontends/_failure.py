"""Why torch could not export a module, in one line."""

from __future__ import annotations

import re
import traceback

__all__ = ["explain", "first_line"]

_USER_CODE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)')
_LIBRARY = ("/torch/", "/onnxscript/", "/onnx_ir/", "<")


def explain(error: BaseException) -> str:
    """Return the reason of a failed export, and where in the module's code it arose."""
    cause = _innermost(error)
    place = _place(cause) or _place_in_text(_whole_text(error))
    return f"{type(cause).__name__}: {first_line(cause)}" + (f" (at {place})" if place else "")


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


def _is_foreign(file: str) -> bool:
    ours = "/frontends/" in file or "/irtools/" in file
    return not ours and not any(part in file for part in _LIBRARY)
