"""Training, on transformers.Trainer: one process or many, with checkpoints to continue from."""

from __future__ import annotations

import json
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from irtools.data import Dataset
from irtools.errors import DataError
from irtools.frontends.students.networks.checkpoints import quiet_library, writing
from irtools.frontends.students.networks.rounded import trained_through
from irtools.frontends.students.training.data import Rows, collate
from irtools.frontends.students.training.objective import Objective
from irtools.frontends.students.training.precision import check_precision, precision_here
from irtools.frontends.students.training.sharding import shard_on_cpus
from irtools.plugins import Progress
from irtools.students import TrainingSettings

__all__ = ["Run", "StudentLoop", "last_checkpoint", "train"]

_STATE = "trainer_state.json"
_LAST_SHARE = 10


@dataclass(frozen=True)
class Run:
    """What a training did.

    Attributes:
        network: The trained network, unwrapped; its weights may be spread over processes.
        steps: Optimizer steps in all.
        seconds: Of this process, without those before a resume.
        losses: Mean of the terms over the last tenth of the steps.
    """

    network: Any
    steps: int
    seconds: float
    losses: Mapping[str, float]


def train(
    network: Any,
    objective: Objective,
    data: Dataset,
    extra: Mapping[str, np.ndarray],
    settings: TrainingSettings,
    folder: Path,
    final: Path,
    progress: Progress,
    label: str,
    *,
    optimizer: str | None = None,
) -> Run:
    """Train a network and write it to `final`, which every process does together.

    Args:
        extra: Arrays in addition to the data's own, for the objective.
        folder: For checkpoints; training goes on from the last whole one in it.
        optimizer: One of transformers' names; None: its AdamW.

    Raises:
        UnsupportedError: The precision is not for this machine.
        DataError: The loss is not a finite number.
        FileError: The disk is full.
    """
    check_precision(settings.precision)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    started = time.monotonic()
    with quiet_library():
        trainer = StudentLoop(
            objective=objective,
            model=network,
            args=_arguments(settings, folder, optimizer),
            train_dataset=Rows(data, extra),
            data_collator=collate,
            callbacks=[_Tell(progress, label)],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        _move(objective, trainer.args.device)
        last = last_checkpoint(folder)
        with writing(folder.parent), trained_through(network, settings.quantize):
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
            trainer.save_model(str(final))
    # Under ZeRO-3 the library would spread whatever is loaded from here on over all processes, and
    # wait for them; but the main process alone reads the result.
    unset_hf_deepspeed_config()
    losses = trainer.mean_losses()
    if not all(np.isfinite(value) for value in losses.values()):
        raise DataError(f"{label}: the loss became {losses}; try a smaller learning rate, or fp32")
    # `quiet_library` must not hide that weights are spread over processes after this.
    return Run(trainer.model, trainer.state.global_step, time.monotonic() - started, losses)


class StudentLoop(Trainer):  # type: ignore[misc]
    """A Trainer whose loss is an objective."""

    # An objective is a mean over its batch.
    loss_is_scaled_for_ga = False

    def __init__(self, *, objective: Objective, **given: Any) -> None:
        super().__init__(**given)
        self._objective = objective
        self._seen: defaultdict[str, deque[torch.Tensor]] = defaultdict(self._window)

    def _window(self) -> deque[torch.Tensor]:
        """Terms of the last tenth of the steps."""
        return deque(maxlen=max(1, self.state.max_steps // _LAST_SHARE))

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the objective's loss; see `Trainer.compute_loss`."""
        student = self.accelerator.unwrap_model(model)
        loss, terms, outputs = self._objective(model, student, inputs)
        for name, term in terms.items():
            self._seen[name].append(term)
        return (loss, outputs) if return_outputs else loss

    def mean_losses(self) -> dict[str, float]:
        """Return the mean of every term over the last steps."""
        return {name: float(torch.stack(list(kept)).mean()) for name, kept in self._seen.items()}


class _Tell(TrainerCallback):  # type: ignore[misc]
    """Reports the progress of the training to a person, in the main process."""

    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._label = label

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.is_world_process_zero:
            self._progress.step(self._label, state.global_step, state.max_steps)


def _arguments(settings: TrainingSettings, folder: Path, optimizer: str | None) -> Any:
    chosen = {} if optimizer is None else {"optim": optimizer}
    precision = precision_here(settings.precision)
    made = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        save_strategy="epoch" if settings.save_steps is None else "steps",
        save_steps=settings.save_steps or 500,
        save_total_limit=2,
        seed=settings.seed,
        data_seed=settings.seed,
        disable_tqdm=True,
        report_to="none",
        log_level="error",
        log_level_replica="error",
        logging_strategy="epoch",
        remove_unused_columns=False,
        label_names=["labels"],
        use_cpu=not torch.accelerator.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        **chosen,
    )
    # A process has one device, more are for more processes: DataParallel would run the losses on
    # parts of a batch, several at a time.
    made._n_gpu = min(made.n_gpu, 1)
    # By default it asks the environment.
    made.mixed_precision = "no" if precision == "fp32" else precision
    shard_on_cpus(made.distributed_state)
    return made


def _move(objective: Objective, device: Any) -> None:
    if objective.teacher is not None:
        objective.teacher.to(device).eval()


def last_checkpoint(folder: Path) -> Path | None:
    """Return the last whole checkpoint of a training, or None.

    The library writes the state last, so a folder without it is what a stopped run left.
    """
    whole = [path for path in folder.glob("checkpoint-*") if _is_whole(path)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_whole(path: Path) -> bool:
    try:
        return "global_step" in json.loads((path / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
