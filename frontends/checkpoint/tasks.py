"""What a checkpoint can be used for, found from its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from irtools.errors import OptionError, UnsupportedError

__all__ = ["TASKS", "NetworkUse", "find_task", "tasks_of"]


@dataclass(frozen=True)
class NetworkUse:
    """A use of a network.

    Attributes:
        name: As model hubs call it.
        auto: Class of transformers that picks the network for a model type.
        table: Table of transformers, model type to network.
        has_classes: Whether `id2label` names the classes of `logits`.
    """

    name: str
    auto: str
    table: str
    has_classes: bool = False


# Where an architecture is in several tables the first one counts: GPT2LMHeadModel generates text.
TASKS: Mapping[str, NetworkUse] = {
    task.name: task
    for task in (
        NetworkUse(
            "text-classification",
            "AutoModelForSequenceClassification",
            "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
            has_classes=True,
        ),
        NetworkUse(
            "token-classification",
            "AutoModelForTokenClassification",
            "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
            has_classes=True,
        ),
        NetworkUse(
            "question-answering",
            "AutoModelForQuestionAnswering",
            "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
        ),
        NetworkUse(
            "image-classification",
            "AutoModelForImageClassification",
            "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
            has_classes=True,
        ),
        NetworkUse(
            "automatic-speech-recognition",
            "AutoModelForSpeechSeq2Seq",
            "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
        ),
        NetworkUse(
            "text2text-generation",
            "AutoModelForSeq2SeqLM",
            "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
        ),
        NetworkUse("text-generation", "AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
        NetworkUse("fill-mask", "AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
        NetworkUse("feature-extraction", "AutoModel", "MODEL_MAPPING_NAMES"),
    )
}


def find_task(config: Any, wanted: str | None, where: str) -> tuple[NetworkUse | None, str]:
    """Choose the task of a checkpoint and the network for it.

    Args:
        config: The checkpoint's config.
        wanted: Name of a task; None: that of the network which the config names.
        where: What a message calls the checkpoint.

    Returns:
        The task, None where the config names a network that belongs to none; and the network's
        class.

    Raises:
        OptionError: There is no such task, or no network of this model type for it.
    """
    if wanted is not None and wanted not in TASKS:
        raise OptionError(f"there is no task {wanted!r}; tasks are {', '.join(TASKS)}")
    possible = tasks_of(config)
    if wanted is not None:
        if wanted not in possible:
            fitting = ", ".join(possible) or "none"
            raise OptionError(
                f"{where} ({config.model_type}) is not made for {wanted!r}; tasks that fit: "
                f"{fitting}"
            )
        return TASKS[wanted], possible[wanted]
    for architecture in config.architectures or ():
        for name, network in possible.items():
            if network == architecture:
                return TASKS[name], network
        return None, architecture
    if "feature-extraction" not in possible:
        raise UnsupportedError(
            f"{where} names no architecture and no task fits its model type {config.model_type!r}"
        )
    return TASKS["feature-extraction"], possible["feature-extraction"]


def tasks_of(config: Any) -> dict[str, str]:
    """Return the tasks that a model type has networks for, and the network's class for each."""
    remote = getattr(config, "auto_map", None) or {}
    found = {}
    for task in TASKS.values():
        network = remote.get(task.auto)
        network = str(network).rpartition(".")[2] if network else _listed(task, config)
        if network is not None:
            found[task.name] = network
    return found


def _listed(task: NetworkUse, config: Any) -> str | None:
    from transformers.models.auto import modeling_auto

    listed = getattr(modeling_auto, task.table).get(config.model_type)
    if listed is None or isinstance(listed, str):
        return listed
    named = [name for name in listed if name in (config.architectures or ())]
    return str((named or listed)[0])
