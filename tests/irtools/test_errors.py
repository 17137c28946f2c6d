"""An error says where it happened, in one line, and keeps what it was made of."""

from __future__ import annotations

import pytest

from irtools.errors import (
    IrtoolsError,
    MissingExtraError,
    PipelineSyntaxError,
    UnknownNameError,
    UnsupportedError,
)


@pytest.mark.parametrize(
    "error",
    [
        UnsupportedError("no kernel"),
        UnknownNameError("there is no pass 'x'"),
        MissingExtraError("a checkpoint", "torch"),
        PipelineSyntaxError("no such option", "fuse:a=1", 5),
    ],
)
def test_a_place_comes_before_the_message(error: IrtoolsError) -> None:
    message, args = str(error), error.args
    assert error.within("pass 2 of 3 (int8)") is error
    assert str(error) == f"pass 2 of 3 (int8): {message}" and error.args == args
    error.within("chain")
    assert str(error) == f"chain: pass 2 of 3 (int8): {message}"
