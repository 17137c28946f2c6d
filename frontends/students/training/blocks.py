"""One block of a network at a time, trained to give what another network's blocks give there.

Layer-by-layer knowledge distillation of ZeroQuant (Yao et al. 2022): for block k of the student,
which stands for one or several blocks of the teacher,

    min  ||student_k(x) - teacher_k(x)||^2          x: what the teacher's own blocks before k give

No labels are read, and gradients and the optimizer's moments are those of one block. What is
kept of the data is the hidden states in front of the block, [tokens, width] in float32.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from irtools.errors import DataError, UnsupportedError
from irtools.frontends.students.networks.anatomy import find_layers, unit_mask
from irtools.frontends.students.networks.rounded import trained_through
from irtools.frontends.students.training.losses import hidden_loss
from irtools.frontends.students.training.precision import precision_here
from irtools.students import TrainingSettings

__all__ = ["BlockBatch", "Fit", "advance", "captured", "fit_block", "on_device", "training_device"]

Call: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"
"""Further arguments of a block: positional ones after the hidden states, and keywords."""

_HIDDEN = "hidden_states"
_TINY = 1e-30
_TEST_SHARE = 8
"""One batch in so many is not trained on."""


@dataclass
class BlockBatch:
    """A batch of samples on its way through the teacher.

    Attributes:
        hidden: In front of the next block, [N, S, H].
        mask: 1 on tokens, 0 on padding, [N, S].
        calls: How the teacher calls each of its blocks besides.
    """

    hidden: Tensor
    mask: Tensor
    calls: Sequence[Call]


def training_device() -> torch.device:
    """Return where blocks are trained: the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def on_device(device: torch.device, *modules: nn.Module) -> Iterator[None]:
    """Move modules to a device, and back to the CPU afterwards."""
    for module in modules:
        module.to(device)
    try:
        yield
    finally:
        for module in modules:
            module.to("cpu")


def captured(network: Any, batch: Mapping[str, Tensor]) -> BlockBatch:
    """Run a network, and keep what its first block is given and how all are called.

    Args:
        batch: Inputs without labels.

    Raises:
        UnsupportedError: It has no list of blocks, or does not hand hidden states to them.
    """
    _, stack = find_layers(network)
    calls: list[Call] = []
    first: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        hidden, call = _split(module, args, given)
        first.append(hidden)
        calls.append(call)

    handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in stack]
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            network(**{name: value.to(device) for name, value in batch.items()})
    finally:
        for handle in handles:
            handle.remove()
    hidden = first[0].cpu()
    mask = unit_mask(batch, hidden.shape[1])
    return BlockBatch(hidden, mask, _moved(calls, torch.device("cpu")))


def _split(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[Tensor, Call]:
    if args:
        hidden, rest = args[0], (args[1:], dict(given))
    else:
        hidden = given.get(_HIDDEN)
        rest = ((), {name: value for name, value in given.items() if name != _HIDDEN})
    if not isinstance(hidden, Tensor) or hidden.ndim != 3:
        raise UnsupportedError(
            f"{type(module).__name__} is not called with hidden states of samples, tokens and "
            "width: it cannot be trained by itself"
        )
    return hidden, rest


def advance(blocks: Sequence[nn.Module], places: Sequence[int], batch: BlockBatch) -> Tensor:
    """Return what some blocks of the teacher, one after the other, make of a batch."""
    device = next(blocks[0].parameters()).device
    hidden = batch.hidden.to(device)
    with torch.no_grad():
        for block, place in zip(blocks, places, strict=True):
            hidden = _run(block, hidden, batch.calls[place])
    return hidden.cpu()


def _run(block: nn.Module, hidden: Tensor, call: Call) -> Tensor:
    args, given = _moved(call, hidden.device)
    found = block(hidden, *args, **given)
    first = found[0] if isinstance(found, tuple) else found
    assert isinstance(first, Tensor)
    return first


def _moved(tree: Any, device: torch.device) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), tree)


@dataclass(frozen=True)
class Fit:
    """What training a block did: relative squared errors on batches that were not trained on."""

    before: float
    after: float
    steps: int


def fit_block(
    block: nn.Module,
    place: int,
    batches: Sequence[BlockBatch],
    wanted: Sequence[Tensor],
    settings: TrainingSettings,
    seed: int,
) -> Fit:
    """Train a block of the student; it stays as it was where that is better.

    Args:
        block: Changed in place, without the rounding of its weights.
        place: The teacher's block whose arguments it is called with.
        batches: What it is given.
        wanted: What it should give, [N, S, H] for each batch.

    Raises:
        DataError: The error is not a number.
    """
    pairs = list(zip(batches, wanted, strict=True))
    cut = len(pairs) - max(1, len(pairs) // _TEST_SHARE)
    trained, test = pairs[:cut] or pairs, pairs[cut:]
    with trained_through(block, settings.quantize):
        before = _error(block, place, test)
        if before == 0:
            return Fit(0.0, 0.0, 0)
        if not math.isfinite(before):
            raise DataError(f"block {place} gives NaN or infinity on the training data")
        start = copy.deepcopy(block.state_dict())
        steps = _train(block, place, trained, settings, seed)
        after = _error(block, place, test)
    if not after < before:
        block.load_state_dict(start)
        after = before
    return Fit(before, after, steps)


def _train(
    block: nn.Module,
    place: int,
    pairs: Sequence[tuple[BlockBatch, Tensor]],
    settings: TrainingSettings,
    seed: int,
) -> int:
    """Minimize the squared error, without dropout, in the order that a seed gives."""
    optimizer = torch.optim.AdamW(_groups(block, settings), lr=settings.learning_rate)
    total = max(1, math.ceil(settings.epochs * len(pairs) / settings.accumulation))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, settings, total))
    drawn = _drawn(len(pairs), seed)
    block.requires_grad_(True)
    try:
        for _ in range(total):
            optimizer.zero_grad()
            for _ in range(settings.accumulation):
                batch, wanted = pairs[next(drawn)]
                with _arithmetic(settings):
                    loss = _loss(block, place, batch, wanted)
                (loss / settings.accumulation).backward()
            optimizer.step()
            schedule.step()
    finally:
        block.requires_grad_(False)
        optimizer.zero_grad(set_to_none=True)
    return total


def _groups(block: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Return the parameters: matrices decay, biases and norms do not."""
    matrices = [p for p in block.parameters() if p.ndim > 1]
    others = [p for p in block.parameters() if p.ndim <= 1]
    decay = settings.weight_decay
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _rate(settings: TrainingSettings, total: int, step: int) -> float:
    """Return the share of the learning rate: up in the warm-up, then down to 0."""
    rising = settings.warmup * total
    if step < rising:
        return (step + 1) / (rising + 1)
    return max(0.0, (total - step) / max(1.0, total - rising))


def _drawn(count: int, seed: int) -> Iterator[int]:
    """Yield each of `count` batches once in every round, in drawn orders."""
    rng = random.Random(seed)
    while True:
        yield from rng.sample(range(count), count)


def _arithmetic(settings: TrainingSettings) -> AbstractContextManager[Any]:
    if precision_here(settings.precision) == "fp32":
        return nullcontext()
    found: AbstractContextManager[Any] = torch.autocast(training_device().type, torch.bfloat16)
    return found


def _loss(block: nn.Module, place: int, batch: BlockBatch, wanted: Tensor) -> Tensor:
    """Return the squared error relative to the mean square of what is wanted, over tokens."""
    device = next(block.parameters()).device
    wanted, mask = wanted.to(device), batch.mask.to(device)
    found = _run(block, batch.hidden.to(device), batch.calls[place]).float()
    size = hidden_loss(torch.zeros_like(wanted), wanted, mask).clamp_min(_TINY)
    return hidden_loss(found, wanted, mask) / size


def _error(block: nn.Module, place: int, pairs: Sequence[tuple[BlockBatch, Tensor]]) -> float:
    with torch.no_grad():
        found = [float(_loss(block, place, batch, wanted)) for batch, wanted in pairs]
    return sum(found) / len(found)
