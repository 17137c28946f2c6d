"""What runs in child processes: models are loaded here, and never in the server."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irtools.driver.contenders import load_contender
from irtools.measure.live import LiveSession, LiveSettings
from irtools.measure.own_machine import refuse_foreign
from irtools.measure.stream import Channel
from irtools.measure.timing import Contender
from irtools.report.bench import bench_document
from irtools.targets import find_target, target_text

__all__ = ["contender", "measure"]


def measure(
    channel: Channel, chosen: Sequence[tuple[str, str, str]], settings: Mapping[str, Any]
) -> None:
    """Measure live until the time is over, or until an order comes.

    Emits what `LiveSession` emits, and at the end `bench`, the document of `irc bench`.

    Args:
        channel: Of the server.
        chosen: Name, path and target of each contender.
        settings: Fields of `LiveSettings`.
    """
    contenders = {name: contender(path, target) for name, path, target in chosen}
    session = LiveSession(contenders, LiveSettings(**settings), channel.emit)
    threading.Thread(target=_stop_on_order, args=(channel, session), daemon=True).start()
    channel.emit({"bench": bench_document(session.run())})


def contender(path: str, target: str) -> Contender:
    """Return a model or compiled file, and what runs it.

    Raises:
        UsageError: Another machine's target, or the file of another runtime.
        IrtoolsError: As `load_source`.
    """
    found = find_target(target)
    refuse_foreign(found, "the measurement")
    return Contender(load_contender(str(Path(path)), found), target_text(found))


def _stop_on_order(channel: Channel, session: LiveSession) -> None:
    channel.receive()
    session.stop()
