"""A pruned ONNX model turned back into a network of Transformers that can be trained.

`prune` gives every layer widths of its own, and a config of Transformers has one for all. So the
feed-forward width becomes that of the widest layer, and what a layer lacks is filled up with
zeros, as are heads: exactly the same function. Zeros stay zeros in training: a unit whose way out
is zero gets no gradient on its way in, and the other way round.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from irtools.analysis.provenance import module_name
from irtools.data import SyntheticSettings, synthesize
from irtools.editing import constant_of
from irtools.errors import ModelError, UnsupportedError, UsageError
from irtools.frontends.students.networks.anatomy import find_layers, layer_of
from irtools.frontends.students.networks.checkpoints import load_config, network_class
from irtools.model import Model
from irtools.targets import RunnerOptions, find_target
from irtools.words import counted

__all__ = ["read_pruned"]

_TOLERANCE = 1e-4
_FFN_NAMES = ("intermediate_size", "hidden_dim")


def read_pruned(path: Path, teacher: Any | None) -> tuple[Any, str]:
    """Make a network of the weights in an ONNX file, and check that both compute the same.

    Args:
        teacher: Its config is taken where there is no `config.json` next to the file.

    Returns:
        The network, and one line that says what its config could not express.

    Raises:
        UsageError: There is no config.
        UnsupportedError: Weights that are quantized, fused or not found by name.
        ModelError: The network computes something else.
    """
    model = Model.load(path)
    config = _config(path, teacher)
    kind = network_class(config, path)
    with torch.device("meta"):
        whole = kind(copy.deepcopy(config))
    found = _weights(model.ir, whole, path)
    said = _fit_config(config, whole, found)
    network = kind(config).float().eval()
    network.load_state_dict(_filled_up(network, found, path), strict=False)
    _compare(model, network, path)
    return network, f"{path.name}: {said}"


def _config(path: Path, teacher: Any | None) -> Any:
    if _brings_config(path):
        return load_config(path.parent)
    if teacher is None:
        raise UsageError(
            f"{path} does not say what network it is: put the config.json of its checkpoint "
            "next to it"
        )
    return copy.deepcopy(teacher.config)


def _brings_config(path: Path) -> bool:
    return (path.parent / "config.json").is_file()


def _weights(model: ir.Model, network: Any, path: Path) -> dict[str, np.ndarray]:
    """Return the parameters by torch's names and in torch's layout, as far as they are in a file.

    Matrices have lost their names in the export: they are found by their bias, or by the module
    that the exporter noted.
    """
    initializers = model.graph.initializers
    linear = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear)}
    found = dict(_matrices(model, set(linear)))
    for name, parameter in network.named_parameters():
        if name in found:
            continue
        value = initializers.get(name)
        tensor = None if value is None else constant_of(value)
        if tensor is None:
            if _is_unused(name):
                continue
            raise UnsupportedError(
                f"{path} has no float weights for {name} {list(parameter.shape)}: give the file "
                "that prune wrote, before fuse and int8, of a model exported by irc export"
                + _hint(path)
            )
        found[name] = tensor.numpy().astype(np.float32)
    return found


def _hint(path: Path) -> str:
    if _brings_config(path):
        return ""
    return "; it is read by the teacher's config, because there is no config.json next to it"


def _is_unused(name: str) -> bool:
    # A pooler after a head of its own is unused, and the exporter leaves it out.
    return ".pooler." in name


def _matrices(model: ir.Model, names: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield weight and bias of every linear layer, [out, in] and [out]."""
    for node in model.graph:
        if node.op_type not in ("MatMul", "Gemm") or (name := module_name(node)) not in names:
            continue
        weight = constant_of(node.inputs[1])
        if weight is None:
            continue
        array = weight.numpy().astype(np.float32)
        transposed = node.attributes.get("transB")
        is_torch_layout = transposed is not None and transposed.as_int() == 1
        yield f"{name}.weight", array if is_torch_layout else array.T
        bias = node.inputs[2] if len(node.inputs) > 2 else _added(node)
        tensor = None if bias is None else constant_of(bias)
        if tensor is not None:
            yield f"{name}.bias", tensor.numpy().astype(np.float32)


def _added(node: ir.Node) -> ir.Value | None:
    """Return the constant vector that the one user of a product adds to it."""
    users = [usage.node for usage in node.outputs[0].uses()]
    if len(users) != 1 or users[0].op_type != "Add":
        return None
    for value in users[0].inputs:
        tensor = None if value is None else constant_of(value)
        if tensor is not None and len(tensor.shape) == 1:
            return value
    return None


def _fit_config(config: Any, whole: Any, found: Mapping[str, np.ndarray]) -> str:
    """Set the widths that a config can express, and return in words what it cannot."""
    layers, stack = find_layers(whole)
    full = next((getattr(config, name) for name in _FFN_NAMES if hasattr(config, name)), None)
    ffn, heads = [], []
    per_head = config.hidden_size // config.num_attention_heads
    for name, module in whole.named_modules():
        if not isinstance(module, nn.Linear) or layer_of(f"{name}.", layers) is None:
            continue
        rows = len(found[f"{name}.weight"])
        if module.out_features == full:
            ffn.append(rows)
        elif name.rpartition(".")[2] in ("query", "q_lin", "q_proj", "query_proj", "q"):
            heads.append(rows // per_head)
    widest = max(ffn, default=full)
    for name in _FFN_NAMES:
        if hasattr(config, name) and widest is not None and full != config.hidden_size:
            setattr(config, name, widest)
    tables = [array for name, array in found.items() if name.endswith("word_embeddings.weight")]
    if tables:
        # trim-vocabulary leaves fewer rows, and a tokenizer to match.
        config.vocab_size = len(tables[0])
    missing = config.num_attention_heads * len(stack) - sum(heads) if heads else 0
    empty = sum(widest - width for width in ffn) if widest is not None else 0
    said = (
        f"{counted(sum(heads), 'head')} and {counted(sum(ffn), 'neuron')} in "
        f"{counted(len(stack), 'layer')}"
    )
    if missing or empty:
        said += (
            f"; a {config.model_type} config has one width for all layers, so "
            f"{counted(missing, 'head')} and {counted(empty, 'neuron')} are zeros, which stay "
            "zeros in training: prune them after the export"
        )
    return said


def _filled_up(network: Any, found: Mapping[str, np.ndarray], path: Path) -> dict[str, Any]:
    """Return the parameters with zeros where a linear layer lacks units."""
    linear = {n for n, m in network.named_modules() if isinstance(m, nn.Linear)}
    state = {}
    for name, parameter in network.named_parameters():
        if name not in found:
            continue
        array = found[name]
        lacks = [wanted - size for wanted, size in zip(parameter.shape, array.shape, strict=True)]
        may_lack = name.rpartition(".")[0] in linear
        if any(lacks) and not (may_lack and min(lacks) >= 0):
            raise UnsupportedError(
                f"{path}: {name} has shape {list(array.shape)}, and the config says "
                f"{list(parameter.shape)}"
            )
        padded = np.pad(array, [(0, lack) for lack in lacks])
        state[name] = torch.from_numpy(np.ascontiguousarray(padded))
    return state


def _compare(model: Model, network: Any, path: Path) -> None:
    data = synthesize(model, SyntheticSettings(samples=4, sequence=16, seed=0))
    with find_target("ort-cpu").runner(model, RunnerOptions(exact=True)) as runner:
        wanted = next(iter(runner.run(dict(data.feeds)).values()))
    with torch.inference_mode():
        inputs = {name: torch.from_numpy(array) for name, array in data.feeds.items()}
        logits = network(**inputs).logits.numpy()
    norm = float(np.linalg.norm(wanted)) or 1.0
    error = (
        float(np.linalg.norm(logits - wanted)) / norm
        if logits.shape == wanted.shape
        else float("inf")
    )
    if not error <= _TOLERANCE:
        raise ModelError(
            f"the network made of {path} differs from it by {error:.1e} (relative L2), expected at "
            f"most {_TOLERANCE:.0e}: its config.json is that of another network"
        )
