"""Everything irtools raises on purpose.

    IrtoolsError
    ├── UsageError               2   wrong option, name or combination
    │   ├── PipelineSyntaxError      pipeline text that does not parse
    │   ├── UnknownNameError         no pass, target, metric or frontend of that name
    │   └── OptionError              a value that an option does not take
    ├── ModelError               3   a model that cannot be read or is not valid
    ├── DataError                3   data that does not fit the model
    ├── UnsupportedError         4   sound, but not on this target or not by this pass
    │   ├── TargetUnavailableError   the target's runtime or device is absent here
    │   └── MissingExtraError        an optional dependency is not installed
    ├── CheckError               5   a check does not hold; nothing was written
    │   ├── VerificationError        a pass broke the model
    │   └── BudgetError              the model is sound, but an accuracy budget is not kept
    ├── FileError                6   a file cannot be read or written
    ├── ClusterError             6   a cluster cannot be reached, or was lost
    ├── LimitError               7   a time, memory or size limit was reached
    └── PassError               70   a pass failed unexpectedly (a bug in the pass)

A message says what was found, what was expected, where, and what to do. The number is the
exit code of `irc`.
"""

from __future__ import annotations

from typing import ClassVar, Self

__all__ = [
    "BudgetError",
    "CheckError",
    "ClusterError",
    "DataError",
    "FileError",
    "IrtoolsError",
    "LimitError",
    "MissingExtraError",
    "ModelError",
    "OptionError",
    "PassError",
    "PipelineSyntaxError",
    "TargetUnavailableError",
    "UnknownNameError",
    "UnsupportedError",
    "UsageError",
    "VerificationError",
]


class IrtoolsError(Exception):
    """Base of all errors that irtools raises on purpose.

    Attributes:
        place: Where in a run it happened (`pass 2/3 int8`); printed before the message.
    """

    exit_code: ClassVar[int] = 70
    place: str = ""

    def within(self, place: str) -> Self:
        """Return the error itself, which from here on says where it happened."""
        self.place = f"{place}: {self.place}" if self.place else place
        return self

    def __str__(self) -> str:
        text = super().__str__()
        return f"{self.place}: {text}" if self.place else text


class UsageError(IrtoolsError, ValueError):
    """The caller asked for something that does not exist or cannot be combined."""

    exit_code = 2


class PipelineSyntaxError(UsageError):
    """Pipeline text that does not parse.

    Args:
        message: What was found and what was expected.
        text: The whole pipeline text.
        column: Offset of the culprit in `text`, counted from 0.
    """

    def __init__(self, message: str, text: str = "", column: int = 0) -> None:
        self.text = text
        self.column = column
        super().__init__(f"{message} (column {column + 1} of {text!r})" if text else message)


class UnknownNameError(UsageError, LookupError):
    """No pass, target, metric or frontend of that name."""


class OptionError(UsageError):
    """A value that an option does not take."""


class ModelError(IrtoolsError, ValueError):
    """A model that cannot be read or is not valid."""

    exit_code = 3


class DataError(IrtoolsError, ValueError):
    """Data that cannot be read or does not fit the model's signature."""

    exit_code = 3


class UnsupportedError(IrtoolsError):
    """Sound, but not possible on this target or with this pass."""

    exit_code = 4


class TargetUnavailableError(UnsupportedError):
    """The target's runtime or device is absent on this machine."""


class MissingExtraError(UnsupportedError, ImportError):
    """An optional dependency is not installed.

    Args:
        need: What was asked for, in words.
        extra: Name of the extra that provides it.
    """

    def __init__(self, need: str, extra: str) -> None:
        super().__init__(
            f"{need} needs packages that are not installed: pip install 'irtools-compiler[{extra}]'"
        )


class CheckError(IrtoolsError):
    """A check does not hold. Nothing was written."""

    exit_code = 5


class VerificationError(CheckError):
    """A pass left a model that is not valid or no longer computes the same function."""


class BudgetError(CheckError):
    """The result does not keep the accuracy budget."""


class FileError(IrtoolsError, OSError):
    """A file cannot be read or written."""

    exit_code = 6


class ClusterError(IrtoolsError, ConnectionError):
    """Workers on other machines cannot be reached, or were lost for good."""

    exit_code = 6


class LimitError(IrtoolsError):
    """A time, memory or size limit was reached."""

    exit_code = 7


class PassError(IrtoolsError, RuntimeError):
    """A pass failed unexpectedly (a bug in the pass). Carries the pass text and its position."""
