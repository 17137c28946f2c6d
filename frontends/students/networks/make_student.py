"""Making the network that is trained: from layers, sizes, a checkpoint or a pruned model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from irtools.errors import UnsupportedError, UsageError
from irtools.frontends.students.networks.anatomy import find_layers, layer_of, uniform_map
from irtools.frontends.students.networks.checkpoints import load_network
from irtools.frontends.students.networks.spec import (
    CheckpointFolder,
    ChosenLayers,
    PrunedModel,
    Shrunk,
    StudentSpec,
)
from irtools.words import counted

__all__ = ["make_student"]


def make_student(spec: StudentSpec, teacher: Any | None, seed: int) -> tuple[Any, str]:
    """Make the student before training.

    Args:
        teacher: The teacher's network; None where it is an ONNX model.
        seed: Of weights that are drawn.

    Returns:
        The network, and one line that says what it is made of.

    Raises:
        UsageError: Layers that the teacher does not have, or a teacher that has none to give.
        UnsupportedError: A teacher without a list of layers, or a pruned model that its config
            cannot express.
    """
    match spec:
        case ChosenLayers(layers):
            return choose_layers(_network(teacher, "layers="), layers)
        case Shrunk():
            return shrink(_network(teacher, "hidden="), spec, seed)
        case CheckpointFolder(folder):
            return load_network(folder), f"the checkpoint {folder}"
        case PrunedModel(path):
            return _from_pruned(path, teacher)


def _network(teacher: Any | None, what: str) -> Any:
    if teacher is None:
        raise UsageError(
            f"a student {what}... takes its form from the teacher's checkpoint, and this teacher "
            "is an ONNX model; give a checkpoint as --student"
        )
    return teacher


def choose_layers(teacher: Any, layers: tuple[int, ...]) -> tuple[Any, str]:
    """Return a copy of the teacher with some of its layers (DistilBERT's initialization).

    Raises:
        UsageError: It has no such layer.
        UnsupportedError: It has no list of layers.
    """
    name, stack = find_layers(teacher)
    wrong = [layer for layer in layers if layer >= len(stack)]
    if wrong:
        raise UsageError(f"the teacher has layers 0 to {len(stack) - 1}, and no layer {wrong[0]}")
    config = copy.deepcopy(teacher.config)
    _set_depth(config, layers)
    student = _fresh(type(teacher), config, seed=0)
    weights = {}
    for key, tensor in teacher.state_dict().items():
        place = layer_of(key, name)
        if place is None:
            weights[key] = tensor
        elif place[0] in layers:
            weights[f"{name}.{layers.index(place[0])}.{place[1]}"] = tensor
    student.load_state_dict(weights)
    listed = ", ".join(map(str, layers))
    return student, f"layers {listed} of the teacher's {len(stack)}"


def shrink(teacher: Any, sizes: Shrunk, seed: int) -> tuple[Any, str]:
    """Return a network of the teacher's kind with other sizes.

    Weights whose shape is the teacher's are copied from it, layer m from g(m) = m N / M; the
    others are drawn.

    Raises:
        UsageError: Sizes that contradict each other.
    """
    config = copy.deepcopy(teacher.config)
    name, stack = find_layers(teacher)
    depth = sizes.layers or len(stack)
    if depth > len(stack):
        layers = counted(depth, "layer")
        raise UsageError(f"a student of {layers} is deeper than its teacher of {len(stack)}")
    chosen = uniform_map(depth, len(stack))
    _set_depth(config, chosen)
    _set_widths(config, sizes)
    try:
        student = _fresh(type(teacher), config, seed)
    except ValueError as error:
        raise UsageError(f"no student of these sizes: {str(error).splitlines()[0]}") from error
    known, own = teacher.state_dict(), student.state_dict()
    copied = {}
    for key, tensor in own.items():
        place = layer_of(key, name)
        source = key if place is None else f"{name}.{chosen[place[0]]}.{place[1]}"
        if source in known and known[source].shape == tensor.shape:
            copied[key] = known[source]
    student.load_state_dict(copied, strict=False)
    share = sum(t.numel() for t in copied.values()) / sum(t.numel() for t in own.values())
    return student, (
        f"{type(student).__name__} of {counted(depth, 'layer')}, width {config.hidden_size}, "
        f"{counted(config.num_attention_heads, 'head')}; {100 * share:.0f} % of its weights are "
        "the teacher's"
    )


def _set_depth(config: Any, layers: tuple[int, ...]) -> None:
    """Set the number of layers, and cut lists that say something of every layer."""
    count = config.num_hidden_layers
    for key, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == count and key == "layer_types":
            setattr(config, key, [value[layer] for layer in layers])
    config.num_hidden_layers = len(layers)


def _set_widths(config: Any, sizes: Shrunk) -> None:
    hidden = sizes.hidden or config.hidden_size
    # The width of a head stays unless heads are given: attention scores keep their scale.
    per_head = config.hidden_size // config.num_attention_heads
    heads = sizes.heads or max(1, hidden // per_head)
    if hidden % heads:
        raise UsageError(f"{heads} heads do not divide the width {hidden}; give heads=")
    ffn_name = _ffn_name(config)
    ratio = getattr(config, ffn_name) / config.hidden_size
    ffn = sizes.ffn or round(ratio * hidden)
    config.hidden_size, config.num_attention_heads = hidden, heads
    setattr(config, ffn_name, ffn)


def _ffn_name(config: Any) -> str:
    for name in ("intermediate_size", "hidden_dim"):
        if hasattr(config, name):
            return name
    raise UnsupportedError(f"the config of {config.model_type} has no width of feed-forward layers")


def _fresh(kind: Any, config: Any, seed: int) -> Any:
    """Make a network with drawn weights, without moving the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(config).float().eval()


def _from_pruned(path: Path, teacher: Any | None) -> tuple[Any, str]:
    from irtools.frontends.students.networks.pruned import read_pruned

    return read_pruned(path, teacher)
