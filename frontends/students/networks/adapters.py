"""Adapters through peft, over a frozen base in float32 or in NF4."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn

from irtools.errors import OptionError, UnsupportedError, UsageError
from irtools.frontends.students.networks.anatomy import head_names, is_language_model
from irtools.frontends.students.networks.nf4 import quantize_nf4
from irtools.students import AdapterSettings

__all__ = [
    "NF4_SIMULATED",
    "attach",
    "chosen_names",
    "linear_names",
    "merge",
    "open_bitsandbytes",
    "round_to_nf4",
    "second_of_two",
    "train_biases",
    "trained_whole",
    "uses_bitsandbytes",
    "wrapped",
]

_RANK = 8
_LARGEST_BLOCK = 32
NF4_SIMULATED = (
    "the NF4 base is simulated in float32 (weights rounded to NF4 with double quantization): no "
    "memory is saved here; with bitsandbytes and a GPU the base is held in 4 bits"
)


def uses_bitsandbytes() -> bool:
    """Whether a base can really be held in 4 bits on this machine."""
    return torch.cuda.is_available() and find_spec("bitsandbytes") is not None


def linear_names(network: Any, fresh: Sequence[str]) -> tuple[str, ...]:
    """Return the linear layers outside the head and outside modules with drawn weights."""
    skipped = (*head_names(network), *fresh)
    last = network.get_output_embeddings() if is_language_model(type(network)) else None
    return tuple(
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and module is not last
        and not any(name == s or name.startswith(f"{s}.") for s in skipped)
    )


def chosen_names(network: Any, settings: AdapterSettings, fresh: Sequence[str]) -> tuple[str, ...]:
    """Return the linear layers that an adapter is for.

    Raises:
        UsageError: There are none, or none has one of the names that were given.
    """
    names = linear_names(network, fresh)
    if not names:
        raise UsageError(
            f"{type(network).__name__} has no linear layers that adapters are for: train all "
            "weights, without --adapter"
        )
    if settings.modules:
        names = tuple(n for n in names if n.rpartition(".")[2] in settings.modules)
        if not names:
            raise UsageError(
                f"no linear layer of {type(network).__name__} is called "
                f"{' or '.join(settings.modules)}"
            )
    return names


def attach(network: Any, settings: AdapterSettings, fresh: Sequence[str], seed: int) -> Any:
    """Freeze a network and add an adapter; head and drawn modules are trained whole.

    Not the last layer of a language model, whose weight is often the table of the inputs too.

    Raises:
        UsageError: No linear layer has one of the names that were given.
        OptionError: A layer has no such blocks.
    """
    names = chosen_names(network, settings, fresh)
    whole = sorted({*trained_whole(network), *fresh})
    config = _config(network, settings, names, whole)
    with torch.random.fork_rng(devices=[]), quiet_peft():
        torch.manual_seed(seed)
        return peft.get_peft_model(network, config)


def trained_whole(network: Any) -> tuple[str, ...]:
    """Return the modules of a network that are trained next to an adapter: the head of a task."""
    return () if is_language_model(type(network)) else head_names(network)


def _config(network: Any, settings: AdapterSettings, names: Sequence[str], kept: list[str]) -> Any:
    """Return peft's configuration of an adapter on the layers `names`."""
    shared = {
        "target_modules": list(names),
        "modules_to_save": kept,
        "task_type": _task_type(network),
    }
    rank = settings.rank or _RANK
    alpha = 2 * rank if settings.alpha is None else settings.alpha
    match settings.kind:
        case "loha":
            return peft.LoHaConfig(r=rank, alpha=alpha, **shared)
        case "lokr":
            return peft.LoKrConfig(r=rank, alpha=alpha, **shared)
        case "oft":
            size = settings.rank or _block(network, names)
            _check_blocks(network, names, size)
            return peft.OFTConfig(r=0, oft_block_size=size, **shared)
        case "ia3":
            return peft.IA3Config(feedforward_modules=second_of_two(network, names), **shared)
        case _:
            return peft.LoraConfig(
                r=rank,
                lora_alpha=alpha,
                lora_dropout=settings.dropout,
                use_rslora=settings.kind == "rslora",
                use_dora=settings.kind == "dora",
                **shared,
            )


def second_of_two(network: Any, names: Sequence[str]) -> list[str]:
    """Return the layers that lead back to the width of the network from a wider one."""
    found = ((name, network.get_submodule(name)) for name in names)
    return [name for name, layer in found if layer.in_features > layer.out_features]


def _block(network: Any, names: Sequence[str]) -> int:
    """Return the largest size up to 32 that divides the inputs of all layers."""
    width = math.gcd(*(network.get_submodule(name).in_features for name in names))
    return next(size for size in range(min(_LARGEST_BLOCK, width), 0, -1) if width % size == 0)


def _check_blocks(network: Any, names: Sequence[str], size: int) -> None:
    """Refuse blocks that do not divide a layer.

    Raises:
        OptionError: One is of another width.
    """
    for name in names:
        width = network.get_submodule(name).in_features
        if width % size:
            raise OptionError(f"rank is {size}: blocks of oft must divide the {width} of {name!r}")


def train_biases(network: Any, names: Sequence[str], kept: Sequence[str]) -> None:
    """Freeze all but the biases of some layers, and some modules whole, in place (BitFit).

    Raises:
        UsageError: None of the layers has a bias.
    """
    biases = {f"{name}.bias" for name in names}
    whole = tuple(f"{name}." for name in kept)
    found = 0
    for name, parameter in network.named_parameters():
        is_bias = name in biases
        found += is_bias
        parameter.requires_grad_(is_bias or name.startswith(whole))
    if not found:
        raise UsageError(
            f"the linear layers of {type(network).__name__} have no biases, which are all that "
            "bitfit trains"
        )


def _task_type(network: Any) -> Any:
    if is_language_model(type(network)):
        return peft.TaskType.CAUSAL_LM
    is_text = type(network).__name__.endswith("ForSequenceClassification")
    return peft.TaskType.SEQ_CLS if is_text else None


def round_to_nf4(network: Any, names: Sequence[str]) -> float:
    """Round the weights of some layers to NF4 in place.

    Returns:
        Their relative error, ||W' - W|| / ||W|| over all of them.
    """
    error = norm = 0.0
    with torch.no_grad():
        for name in names:
            weight = network.get_submodule(name).weight
            rounded = quantize_nf4(weight).dequantize().to(weight.device)
            error += float((rounded - weight).double().square().sum())
            norm += float(weight.double().square().sum())
            weight.copy_(rounded)
    return (error / norm) ** 0.5 if norm else 0.0


def open_bitsandbytes(kind: Any, folder: Path, config: Any, skipped: Sequence[str]) -> Any:
    """Load a base with its linear layers in NF4 and double quantization, on the GPU.

    Raises:
        UnsupportedError: The library cannot.
    """
    import transformers

    quantized = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=list(skipped),
    )
    try:
        network = kind.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            quantization_config=quantized,
            device_map={"": torch.cuda.current_device()},
        )
    except (ImportError, RuntimeError, ValueError) as error:
        raise UnsupportedError(
            f"bitsandbytes cannot hold {folder} in 4 bits: {str(error).splitlines()[0]}"
        ) from error
    return peft.prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)


def wrapped(base: Any, adapter: Path) -> Any:
    """Return a base with an adapter of peft's format next to its weights."""
    with quiet_peft():
        return peft.PeftModel.from_pretrained(base, adapter).eval()


def merge(base: Any, adapter: Path) -> Any:
    """Return the base with an adapter of peft's format folded into its weights.

    W' = W + s B A is computed in float32. The base must be the one that the adapter was trained
    on: for QLoRA the dequantized NF4 weights, not those before quantization (Dettmers 2023).
    """
    with quiet_peft():
        return wrapped(base, adapter).merge_and_unload().eval()


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Keep the library's advice off the terminal; its errors are raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
