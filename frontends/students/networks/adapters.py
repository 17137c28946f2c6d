"""Low-rank adapters through peft, over a frozen base in float32 or in NF4."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn

from irtools.errors import UnsupportedError, UsageError
from irtools.frontends.students.networks.anatomy import head_names
from irtools.frontends.students.networks.nf4 import quantize_nf4
from irtools.students import AdapterSettings

__all__ = [
    "NF4_SIMULATED",
    "attach",
    "linear_names",
    "merge",
    "open_bitsandbytes",
    "round_to_nf4",
    "uses_bitsandbytes",
    "wrapped",
]

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
    return tuple(
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and not any(name == s or name.startswith(f"{s}.") for s in skipped)
    )


def attach(network: Any, settings: AdapterSettings, fresh: Sequence[str], seed: int) -> Any:
    """Freeze a network and add an adapter; head and drawn modules are trained whole.

    Raises:
        UsageError: No linear layer has one of the names that were given.
    """
    names = linear_names(network, fresh)
    if settings.modules:
        names = tuple(n for n in names if n.rpartition(".")[2] in settings.modules)
        if not names:
            raise UsageError(
                f"no linear layer of {type(network).__name__} is called "
                f"{' or '.join(settings.modules)}"
            )
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank if settings.alpha is None else settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(names),
        modules_to_save=sorted({*head_names(network), *fresh}),
        use_rslora=settings.kind == "rslora",
        use_dora=settings.kind == "dora",
        task_type=_task_type(network),
    )
    with torch.random.fork_rng(devices=[]), quiet_peft():
        torch.manual_seed(seed)
        return peft.get_peft_model(network, config)


def _task_type(network: Any) -> Any:
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
