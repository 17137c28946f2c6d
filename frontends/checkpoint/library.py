"""Transformers as a library: imported where it is needed, and kept off the terminal."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from irtools.errors import MissingExtraError

__all__ = ["import_transformers", "quiet"]


def import_transformers() -> Any:
    """Return the library.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise MissingExtraError("exporting a checkpoint", "torch") from error
    return transformers


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's bars, warnings and load report off the terminal, as they were found.

    What they report (missing weights) is an error here. Nor do libraries that it loads by
    themselves log there: peft loads neural-compressor, which reports the accelerator it found.

    Raises:
        MissingExtraError: The library is not installed.
    """
    log = import_transformers().utils.logging
    shown, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        log.set_verbosity(level)
        if shown:
            log.enable_progress_bar()
