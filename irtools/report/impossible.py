"""Documents that follow the schema and hold numbers that no run has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from irtools.errors import DataError

__all__ = ["refuse_impossible"]


@contextmanager
def refuse_impossible() -> Iterator[None]:
    """Turn what arithmetic says of such numbers into an error of the data; also a decorator.

    Raises:
        DataError: A report holds a time of 0 or a number beyond those that floats have.
    """
    try:
        yield
    except ArithmeticError as error:
        raise DataError(f"the report holds a number that no run has: {error}") from error
