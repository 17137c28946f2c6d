"""How models are measured live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from irtools.errors import UsageError

__all__ = ["LiveSettings", "Mode"]

Mode: TypeAlias = Literal["alternating", "load"]

_MOST_CLIENTS = 256


@dataclass(frozen=True)
class LiveSettings:
    """How models are measured live.

    Attributes:
        mode: `alternating`: one request after the other, the contenders in short blocks, one at a
            time. `load`: as many clients as there are in `client_steps`, each of which sends its
            next request when the last one is answered (a closed loop), one contender at a time.
        batch: Size of the batch axis.
        sequence: Size of the sequence axis; of a decoder, the length of the prompt.
        past: Tokens in a decoder's cache; None: the length of the prompt.
        threads: Threads of every contender; None: the CPU quota. Under load they are divided among
            as many copies of the model as there are clients, at most one copy a thread.
        seconds: Length of the whole measurement; alternating it may be stopped before, and goes on
            without end where it is None.
        clients: Most clients under load.
        block_seconds: Time of one block.
        seed: Seed of drawn inputs.
        sizes: Sizes of dynamic axes of drawn inputs, named as `--size` names them.

    Raises:
        UsageError: A value out of range.
    """

    mode: Mode = "alternating"
    batch: int = 1
    sequence: int = 128
    past: int | None = None
    threads: int | None = None
    seconds: float | None = 30.0
    clients: int = 8
    block_seconds: float = 0.7
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in ("alternating", "load"):
            raise UsageError(f"mode is {self.mode!r}, expected alternating or load")
        for name in ("batch", "sequence", "clients", "threads", "past"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected 1 or more")
        if self.clients > _MOST_CLIENTS:
            raise UsageError(f"clients is {self.clients}, expected {_MOST_CLIENTS} at most")
        if self.seconds is not None and not self.seconds > 0:
            raise UsageError(f"seconds is {self.seconds:g}, expected more than 0")

    def client_steps(self) -> Iterator[int]:
        """Yield the numbers of clients under load: 1, 2, 4, .. and the last one."""
        step = 1
        while step < self.clients:
            yield step
            step *= 2
        yield self.clients
