"""Libraries are kept off the terminal, and left as they were."""

from __future__ import annotations

import logging

import pytest

from irtools.frontends.checkpoint.library import quiet

pytestmark = pytest.mark.torch


def test_nothing_below_an_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("some_library")
    with quiet():
        log.warning("hidden")
        log.error("shown")
    log.warning("after")
    assert [record.message for record in caplog.records] == ["shown", "after"]
