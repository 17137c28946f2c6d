"""Adapters merged into a network, in float32 and one after the other.

LoRA, W' = W + (alpha / r) B A (Hu et al. 2021; rsLoRA: alpha / sqrt r, Kalajdzievski 2023), DoRA,
which then rescales each output row to a learned magnitude (Liu et al. 2024), (IA)3, which
rescales keys, values and FFN activations (Liu et al. 2022), LoHa (Hyeon-Woo et al. 2021), LoKr
(Yeh et al. 2023) and OFT, W' = R W with R orthogonal (Qiu et al. 2023), all fold into the weights
exactly.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irtools.errors import CheckError, FileError, MissingExtraError, ModelError, UnsupportedError
from irtools.frontends.torch import RELATIVE_TOLERANCE, first_line, read_tensors, relative_l2
from irtools.words import counted

__all__ = ["Adapter", "read_adapter", "task_of"]

_NAME = "irtools"
_PREFIX = "base_model.model."
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_PROMPTS = "adds learned tokens or keys in front of the input, which no weight of the base can hold"
_CACHE = f"{_PROMPTS}; of a decoder it becomes a cache: --with-past --adapters-as inputs"
_NOT_MERGEABLE: Mapping[str, str] = {
    "PREFIX_TUNING": _CACHE,
    "PROMPT_TUNING": _CACHE,
    "P_TUNING": _CACHE,
    "MULTITASK_PROMPT_TUNING": _PROMPTS,
    "CPT": _PROMPTS,
    "CARTRIDGE": _PROMPTS,
    "ADAPTION_PROMPT": _PROMPTS,
    "XLORA": "mixes several adapters differently for each token",
    "POLY": "mixes several adapters by task",
}
_UNKNOWN_CAUSE = "does it change weights that the base shares between layers?"
_TASKS: Mapping[str, str] = {
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "CAUSAL_LM": "text-generation",
    "SEQ_2_SEQ_LM": "text2text-generation",
    "FEATURE_EXTRACTION": "feature-extraction",
}
_HEADS = (
    "classifier.weight",
    "score.weight",
    "classifier.out_proj.weight",
    "classifier.out.weight",
)


@dataclass(frozen=True)
class Adapter:
    """An adapter folder, read.

    Attributes:
        folder: With `adapter_config.json` and `adapter_model.safetensors`.
        weight: Factor of what it adds.
        config: Its configuration.
        tensors: Its weights, by the names in the file.
    """

    folder: Path
    weight: float
    config: Mapping[str, Any]
    tensors: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Method, as peft calls it."""
        return str(self.config["peft_type"])

    @property
    def task(self) -> str | None:
        """Task that it was trained for; None where it does not say."""
        return _TASKS.get(str(self.config.get("task_type")))

    @property
    def provided(self) -> frozenset[str]:
        """Parameters of the base that it replaces whole, such as a classifier."""
        names = (name.removeprefix(_PREFIX) for name in self.tensors)
        kept = self.config.get("modules_to_save") or ()
        heads = (*kept, "classifier", "score")
        return frozenset(n for n in names if n.split(".")[0] in heads and not _is_delta(n))

    @property
    def classes(self) -> int | None:
        """Classes of the head that it provides; None where it has none."""
        for head in _HEADS:
            if head in self.provided:
                return int(self.tensors[_PREFIX + head].shape[0])
        return None

    def merge_into(self, module: Any, run: Callable[[], Mapping[str, Any]]) -> None:
        """Fold the adapter into the weights of a module.

        Args:
            module: The base, in float32; changed in place.
            run: Runs the module on an example; what it returns must stay as it is with the
                adapter kept apart from the weights.

        Raises:
            ModelError: It was made for another base; names what differs.
            UnsupportedError: It cannot be merged.
            CheckError: Merging it changed the outputs.
        """
        shared = _shared_with(module, self.tensors)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attached = self.attach(module)
            wanted = {name: t.clone() for name, t in run().items()}
            merged = attached.merge_and_unload()
        if merged is not module:
            raise UnsupportedError(f"{self.folder}: {self.kind} does not merge into the weights")
        for name, tensor in run().items():
            error = relative_l2(wanted[name].float().numpy(), tensor.float().numpy())
            if not error <= RELATIVE_TOLERANCE:
                raise CheckError(
                    f"merging {self.folder} changes output {name!r} by {error:.1e} (relative L2), "
                    f"expected at most {RELATIVE_TOLERANCE:.0e}; {shared or _UNKNOWN_CAUSE}"
                )

    def attach(self, module: Any) -> Any:
        """Return peft's wrapper of a module, which the adapter is attached to, in place.

        Raises:
            ModelError: It was made for another base; names what differs.
            UnsupportedError: Its factor has no meaning.
        """
        from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftModel, set_peft_model_state_dict

        config = _peft_config(self)
        kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModel)
        try:
            attached = kind(module, config, _NAME)
        except (ValueError, AttributeError, KeyError) as error:
            raise ModelError(
                f"adapter {self.folder} does not fit {type(module).__name__}: {first_line(error)}"
            ) from error
        self._check_fits(attached, module)
        try:
            set_peft_model_state_dict(attached, dict(self.tensors), adapter_name=_NAME)
        except RuntimeError as error:
            raise ModelError(
                f"adapter {self.folder} was made for another base: {first_line(error)}"
            ) from error
        self._scale(module)
        return attached.eval()

    def _check_fits(self, attached: Any, module: Any) -> None:
        from peft import get_peft_model_state_dict

        wanted = {
            name: tuple(tensor.shape)
            for name, tensor in get_peft_model_state_dict(
                attached, adapter_name=_NAME, save_embedding_layers=False
            ).items()
        }
        found = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        base = type(module).__name__
        strange = [name for name in found if name not in wanted and not _is_embedding(name)]
        if strange:
            raise ModelError(
                f"adapter {self.folder} was made for another base: no part of {base} takes "
                f"{len(strange)} of its {counted(len(found), 'tensor')}, {_shown(strange[0])} first"
            )
        absent = [name for name in wanted if name not in found]
        if absent:
            raise ModelError(
                f"adapter {self.folder} was made for another base: {base} has "
                f"{counted(len(absent), 'part')} that it lacks, {_shown(absent[0])} first"
            )
        other = [name for name in wanted if found[name] != wanted[name]]
        if other:
            name = other[0]
            raise ModelError(
                f"adapter {self.folder} was made for another base: {counted(len(other), 'tensor')} "
                f"of another shape, {_shown(name)} first: {list(found[name])}, and {base} takes "
                f"{list(wanted[name])}"
            )

    def _scale(self, module: Any) -> None:
        if self.weight == 1:
            return
        if self.kind != "LORA" or self.config.get("use_dora"):
            what = "DoRA" if self.config.get("use_dora") else self.kind
            raise UnsupportedError(
                f"adapter {self.folder} is {what}, which adds nothing that a weight of "
                f"{self.weight:g} could scale; give it without a weight"
            )
        for part in module.modules():
            scaling = getattr(part, "scaling", None)
            if isinstance(scaling, dict) and _NAME in scaling:
                scaling[_NAME] *= self.weight


def read_adapter(folder: Path, weight: float = 1.0, *, merges: bool = True) -> Adapter:
    """Read an adapter folder.

    Args:
        folder: With configuration and weights.
        weight: Factor of what it adds.
        merges: It is to be merged, so one that cannot be is refused.

    Raises:
        FileError: There is no such folder.
        MissingExtraError: peft is not installed.
        ModelError: It is not an adapter, or damaged.
        UnsupportedError: Of a kind that cannot be merged; says why.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("merging an adapter", "torch") from error
    if not folder.is_dir():
        raise FileError(f"there is no adapter folder {folder}")
    config = _read_config(folder)
    reason = _NOT_MERGEABLE.get(str(config["peft_type"]))
    if merges and reason is not None:
        raise UnsupportedError(f"adapter {folder} cannot be merged: {config['peft_type']} {reason}")
    return Adapter(folder, weight, config, _read_tensors(folder))


def task_of(adapters: Sequence[Adapter]) -> str | None:
    """Return the task that adapters were trained for, where they name one."""
    return next((a.task for a in adapters if a.task is not None), None)


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "adapter_config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder} is not an adapter: it has no adapter_config.json") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file} is not an adapter configuration")
    if "peft_type" not in config:
        if "config" in config or "architecture" in config or "hidden_size" in config:
            raise UnsupportedError(
                f"adapter {folder} cannot be merged: a bottleneck adapter computes h + U f(D h), "
                "and its non-linearity f does not fold into a weight"
            )
        raise ModelError(f"{file} names no peft_type: it is not an adapter of peft")
    return config


def _read_tensors(folder: Path) -> dict[str, Any]:
    found = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if found is None:
        raise ModelError(f"adapter {folder} has no weights; expected {' or '.join(_FILES)}")
    tensors = read_tensors(found, instead="the tensors alone, as safetensors")
    return {name: tensor.float() for name, tensor in tensors.items()}


def _peft_config(adapter: Adapter) -> Any:
    import peft

    try:
        config = peft.PeftConfig.from_pretrained(adapter.folder)
    except KeyError as error:
        raise ModelError(
            f"{adapter.folder} is an adapter of a kind that peft {peft.__version__} does not know: "
            f"{adapter.kind}"
        ) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{adapter.folder}/adapter_config.json is not understood: {first_line(error)}"
        ) from error
    config.inference_mode = True
    return config


def _shared_with(module: Any, tensors: Mapping[str, Any]) -> str:
    """Say which module that an adapter changes shares its weight with another; '' for none.

    Called before the adapter is attached, which renames the parameters.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    for owners in names.values():
        for owner in owners if len(owners) > 1 else ():
            if any(name.removeprefix(_PREFIX).startswith(f"{owner}.") for name in tensors):
                other = next(o for o in owners if o != owner)
                return (
                    f"it changes {owner!r}, whose weight {other!r} shares: "
                    "save the base with tie_word_embeddings=false and two weights"
                )
    return ""


def _is_delta(name: str) -> bool:
    return any(
        part.startswith(("lora_", "ia3_", "hada_", "lokr_", "oft_")) for part in name.split(".")
    )


def _is_embedding(name: str) -> bool:
    """Whether a tensor is a copy of a table of the base, which peft saves with some adapters."""
    tables = ("embed_tokens.weight", "word_embeddings.weight", "wte.weight", "base_layer.weight")
    return name.endswith(tables)


def _shown(name: str) -> str:
    return repr(name.removeprefix(_PREFIX))
