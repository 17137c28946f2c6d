"""How a network is trained, and what of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from irtools.errors import OptionError

__all__ = ["AdapterKind", "AdapterSettings", "TrainingSettings", "WeightRounding"]

WeightRounding: TypeAlias = Literal["int8", "int4", "ternary"]
"""What weights are rounded to: 8 bits per output channel, 4 bits per block, or three values."""


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast a network is trained: AdamW, linear warm-up, linear decay to 0.

    Attributes:
        epochs: Passes over the training data; a part of one is allowed.
        batch: Samples per step and process.
        learning_rate: Largest step size.
        warmup: Share of the steps in which the learning rate rises.
        weight_decay: Of matrices; biases and norms have none.
        accumulation: Batches whose gradients are added up before a step.
        precision: Arithmetic of forward and backward; weights stay float32.
        save_steps: Steps between checkpoints; None: one per epoch.
        seed: Seed of initial weights, order of samples and dropout.
        threads: Threads of torch; None: torch's choice.
        quantize: The loss is computed with weights of Linear layers rounded so, and the result has
            rounded weights; None: not.
    """

    epochs: float = 3.0
    batch: int = 32
    learning_rate: float = 1e-4
    warmup: float = 0.1
    weight_decay: float = 0.0
    accumulation: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    save_steps: int | None = None
    seed: int = 0
    threads: int | None = None
    quantize: WeightRounding | None = None

    def __post_init__(self) -> None:
        if not 0 < self.epochs < float("inf"):
            raise OptionError(f"epochs is {self.epochs:g}, expected more than 0")
        if min(self.batch, self.accumulation, self.save_steps or 1) < 1 or self.save_steps == 0:
            raise OptionError("batch, accumulation and save-steps are at least 1")
        if not 0 < self.learning_rate < float("inf"):
            raise OptionError(f"learning-rate is {self.learning_rate:g}, expected more than 0")
        if not 0 <= self.warmup < 1:
            raise OptionError(f"warmup is {self.warmup:g}, expected a share from 0 to 1")
        if not 0 <= self.weight_decay < float("inf"):
            raise OptionError(f"weight-decay is {self.weight_decay:g}, expected 0 or more")
        if not 0 <= self.seed < 2**32:
            raise OptionError(f"seed is {self.seed}, expected 0 to {2**32 - 1}")


AdapterKind: TypeAlias = Literal[
    "lora", "rslora", "dora", "qlora", "loha", "lokr", "oft", "ia3", "bitfit"
]
"""What is trained of a frozen network."""

_WITHOUT: Mapping[str, tuple[str, ...]] = {
    "loha": ("adapter-dropout",),
    "lokr": ("adapter-dropout",),
    "oft": ("alpha", "adapter-dropout"),
    "ia3": ("rank", "alpha", "adapter-dropout"),
    "bitfit": ("rank", "alpha", "adapter-dropout"),
}
"""Options that a kind does not have."""


@dataclass(frozen=True)
class AdapterSettings:
    """What is trained of the linear layers of a frozen network; all of it folds into weights.

    Attributes:
        kind: W + s B A with s = alpha / rank (`lora`, Hu 2021) or alpha / sqrt(rank) (`rslora`);
            `dora` rescales every row to a learned length, `qlora` is lora over a base in NF4
            (Dettmers 2023). W + s (B1 A1) * (B2 A2), element by element (`loha`, Hyeon-Woo 2021);
            W + s C x (B A), a Kronecker product (`lokr`, Yeh 2023). R W with R orthogonal, in
            blocks (`oft`, Qiu 2023). Each output of a layer times a learned number (`ia3`, Liu
            2022; of the second layer of a feed-forward part, its inputs). All biases and nothing
            else (`bitfit`, Ben Zaken 2022).
        rank: Rows of A; None: 8. Of `oft` the size of a block, None: the largest up to 32 that
            divides.
        alpha: None: twice the rank.
        dropout: Of the adapter's input.
        modules: Names of the linear layers; empty: all but the head.
    """

    kind: AdapterKind = "lora"
    rank: int | None = None
    alpha: float | None = None
    dropout: float = 0.0
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise OptionError(f"rank is {self.rank}, expected at least 1")
        if self.alpha is not None and not 0 < self.alpha < float("inf"):
            raise OptionError(f"alpha is {self.alpha:g}, expected more than 0")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"adapter-dropout is {self.dropout:g}, expected 0 to 1")
        given = {
            "rank": self.rank is not None,
            "alpha": self.alpha is not None,
            "adapter-dropout": self.dropout > 0,
        }
        for option in _WITHOUT.get(self.kind, ()):
            if given[option]:
                raise OptionError(f"{self.kind} has no {option}: leave it out")
