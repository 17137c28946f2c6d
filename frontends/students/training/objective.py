"""The loss of a student: the weighted sum of the terms that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from irtools.errors import UnsupportedError, UsageError
from irtools.frontends.students.networks.anatomy import (
    PROJECTIONS,
    capture_projections,
    find_layers,
    num_heads,
    uniform_map,
    unit_mask,
)
from irtools.frontends.students.training import losses
from irtools.words import counted

if TYPE_CHECKING:
    from irtools.students import Task

__all__ = ["TEACHER_LOGITS", "Objective", "make_objective"]

TEACHER_LOGITS = "teacher_logits"
_INNER = frozenset({"cosine", "embedding", "hidden", "attention", "relation"})
_ROLES = ("query", "key", "value")


@dataclass(frozen=True)
class Objective:
    """A loss over batches.

    Attributes:
        weights: Weight by name of the term, those above 0.
        task: What the outputs mean.
        temperature: Of the term `soft`.
        teacher: The teacher where a term looks inside it; None where its outputs are enough.
        layer_map: Teacher layer for every student layer.
        relation_heads: Heads of the term `relation`.
    """

    weights: Mapping[str, float]
    task: Task
    temperature: float = 1.0
    teacher: Any = field(default=None, repr=False)
    layer_map: tuple[int, ...] = ()
    relation_heads: int = 1

    def __call__(
        self, model: Any, student: Any, batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor], Any]:
        """Return the loss, its terms before weighting, and the student's outputs.

        Args:
            model: What is run: the student, or what distributes it over processes.
            student: The student itself.
            batch: Inputs, `labels` and, for the term `soft`, `teacher_logits` [N, C].
        """
        inputs = {k: v for k, v in batch.items() if k not in ("labels", TEACHER_LOGITS)}
        terms: dict[str, Tensor] = {}
        with ExitStack() as stack:
            caught = self._watch(stack, student, range(len(self.layer_map)))

            def finish(module: nn.Module, args: object, outputs: Any) -> Any:
                terms.update(self._terms(student, outputs, caught, batch, inputs))
                total = torch.stack([self.weights[name] * term for name, term in terms.items()])
                return type(outputs)(loss=total.sum(), logits=outputs.logits.detach())

            # What distributes the student sees which weights the loss needs by what the student
            # returns: so it returns the loss. First of all hooks, for the last may let weights go.
            stack.callback(student.register_forward_hook(finish, prepend=True).remove)
            outputs = model(**inputs, output_hidden_states=bool(_INNER.intersection(self.weights)))
        return outputs.loss, {name: term.detach() for name, term in terms.items()}, outputs

    def _terms(
        self,
        student: Any,
        outputs: Any,
        caught: Any,
        batch: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        terms = {}
        logits = outputs.logits.float()
        if "soft" in self.weights:
            terms["soft"] = losses.soft_loss(
                logits, batch[TEACHER_LOGITS], self.temperature, self.task
            )
        if "hard" in self.weights:
            terms["hard"] = losses.hard_loss(logits, batch["labels"], self.task)
        if _INNER.intersection(self.weights):
            terms |= self._inner_terms(student, outputs, caught, inputs)
        return terms

    def _watch(self, stack: ExitStack, model: Any, layers: Sequence[int]) -> Any:
        if not {"attention", "relation"}.intersection(self.weights):
            return {}
        return stack.enter_context(capture_projections(model, layers))

    def _inner_terms(
        self, student: Any, outputs: Any, caught: Any, inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        with ExitStack() as stack, torch.no_grad():
            wanted = self._watch(stack, self.teacher, self.layer_map)
            known = self.teacher(**inputs, output_hidden_states=True).hidden_states
        own = outputs.hidden_states
        mask = unit_mask(inputs, own[-1].shape[1])
        hidden, embedding = _learned(student, "hidden"), _learned(student, "embedding")
        terms = {}
        if "cosine" in self.weights:
            terms["cosine"] = losses.cosine_loss(hidden(own[-1]), known[-1], mask)
        if "embedding" in self.weights:
            terms["embedding"] = losses.hidden_loss(embedding(own[0]), known[0], mask)
        if "hidden" in self.weights:
            # Entry 0 is the embeddings, so layer m gives entry m + 1.
            pairs = [(own[m + 1], known[g + 1]) for m, g in enumerate(self.layer_map)]
            terms["hidden"] = _sum(losses.hidden_loss(hidden(s), t, mask) for s, t in pairs)
        if "attention" in self.weights:
            heads = num_heads(student)
            terms["attention"] = _sum(
                losses.attention_loss(_scores(caught, m, heads), _scores(wanted, g, heads), mask)
                for m, g in enumerate(self.layer_map)
            )
        if "relation" in self.weights:
            last = (len(self.layer_map) - 1, self.layer_map[-1])
            terms["relation"] = _sum(
                losses.relation_loss(
                    caught[last[0], role], wanted[last[1], role], mask, self.relation_heads
                )
                for role in _ROLES
            )
        return terms


def _learned(student: Any, name: str) -> Any:
    """Return the learned map to the teacher's width; the identity where the widths agree."""
    maps = getattr(student, PROJECTIONS, None)
    return nn.Identity() if maps is None or name not in maps else maps[name]


def _sum(terms: Any) -> Tensor:
    return torch.stack(list(terms)).sum()


def _scores(caught: Mapping[tuple[int, str], Tensor], layer: int, heads: int) -> Tensor:
    return losses.attention_scores(caught[layer, "query"], caught[layer, "key"], heads)


def make_objective(
    weights: Mapping[str, float],
    task: Task,
    student: Any,
    teacher: Any | None,
    *,
    temperature: float,
    layer_map: tuple[int, ...] | None,
    relation_heads: int | None,
) -> Objective:
    """Check what the terms need, and give the student the maps that it learns for them.

    Raises:
        UsageError: Terms that look inside a teacher that shows only its outputs, a layer map that
            does not fit, or relation heads that do not divide the widths.
        UnsupportedError: Networks that cannot be compared inside.
    """
    wanted = {name: weight for name, weight in weights.items() if weight > 0}
    inner = sorted(_INNER.intersection(wanted))
    if not inner:
        return Objective(wanted, task, temperature)
    if teacher is None:
        raise UsageError(
            f"the losses {', '.join(inner)} look inside the teacher, and an ONNX teacher shows its "
            "outputs alone; give its checkpoint, or leave them out"
        )
    layered = {"hidden", "attention", "relation"}.intersection(wanted)
    chosen = _layer_map(student, teacher, layer_map) if layered else ()
    if "attention" in wanted and num_heads(student) != num_heads(teacher):
        raise UnsupportedError(
            "the loss attention compares head by head: the student has "
            f"{counted(num_heads(student), 'head')} and the teacher {num_heads(teacher)}; use "
            "relation, which has heads of its own"
        )
    heads = _relation_heads(student, teacher, relation_heads) if "relation" in wanted else 1
    _add_projections(student, teacher, wanted)
    return Objective(wanted, task, temperature, teacher, chosen, heads)


def _layer_map(student: Any, teacher: Any, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    own, known = len(find_layers(student)[1]), len(find_layers(teacher)[1])
    chosen = uniform_map(own, known) if wanted is None else wanted
    if len(chosen) != own or not all(0 <= layer < known for layer in chosen):
        raise UsageError(
            f"the layer map {','.join(map(str, chosen))} does not fit: expected "
            f"{counted(own, 'number')}, one per student layer, from 0 to {known - 1}"
        )
    return chosen


def _relation_heads(student: Any, teacher: Any, wanted: int | None) -> int:
    widths = (student.config.hidden_size, teacher.config.hidden_size)
    most = max(num_heads(student), num_heads(teacher))
    if wanted is not None:
        if any(width % wanted for width in widths):
            raise UsageError(f"{wanted} relation heads do not divide the widths {widths}")
        return wanted
    return next(n for n in range(most, 0, -1) if not any(width % n for width in widths))


def _add_projections(student: Any, teacher: Any, weights: Mapping[str, float]) -> None:
    """Add a linear map to the teacher's width where the widths differ, as TinyBERT learns them."""
    narrow, wide = student.config.hidden_size, teacher.config.hidden_size
    maps = nn.ModuleDict()
    if narrow != wide and {"cosine", "hidden"}.intersection(weights):
        maps["hidden"] = nn.Linear(narrow, wide, bias=False)
    if narrow != wide and "embedding" in weights:
        maps["embedding"] = nn.Linear(narrow, wide, bias=False)
    if len(maps):
        student.add_module(PROJECTIONS, maps)
