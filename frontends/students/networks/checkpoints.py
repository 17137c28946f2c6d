"""Reading and writing checkpoint folders for training. Nothing is downloaded, no code is run."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers.activations import ACT2FN

from irtools.errors import FileError, ModelError, UnsupportedError
from irtools.frontends.students.networks.anatomy import PROJECTIONS, head_names
from irtools.sources import TOKENIZER_FILES, check_activation, check_layers, how_to_fetch
from irtools.words import counted

__all__ = [
    "copy_tokenizer",
    "fingerprint",
    "has_tokenizer",
    "load_classifier",
    "load_config",
    "load_network",
    "quiet_library",
    "save_network",
    "writing",
]

# Of safetensors, of torch's archives, and of the stream below them.
_UNWRITTEN = ("I/O error", "inline_container", "iostream error")


def load_config(folder: Path) -> Any:
    """Read the config of a checkpoint.

    Raises:
        FileError: There is no such folder.
        ModelError: It is not a checkpoint.
    """
    if not folder.exists():
        raise FileError(how_to_fetch(str(folder)) or f"there is no checkpoint folder {folder}")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a checkpoint: it has no config.json")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = f"is not a Transformers config: {_line(error)}"
        raise ModelError(f"{folder}/config.json {reason}") from error
    if hasattr(config, "use_cache"):
        config.use_cache = False
    return config


def network_class(config: Any, where: object) -> Any:
    """Return the class that a config names.

    Raises:
        UnsupportedError: It names none, or one that the library does not have.
    """
    names = config.architectures or []
    kind = getattr(transformers, names[0], None) if names else None
    if kind is None:
        raise UnsupportedError(
            f"{where} needs the class {names[0] if names else None!r}, which transformers "
            f"{transformers.__version__} does not have; code in a checkpoint is never run"
        )
    return kind


def load_network(folder: Path) -> Any:
    """Load a checkpoint as the class that it names, in float32 and evaluation mode.

    Raises:
        FileError: There is no such folder.
        ModelError: It is damaged, or has no weights for some parameters.
        UnsupportedError: A class that the library does not have.
    """
    config = load_config(folder)
    network, info = _load(network_class(config, folder), folder, config)
    missing = sorted(info["missing_keys"])
    if missing:
        # The library fills them with random numbers.
        raise ModelError(
            f"{folder} has no weights for {counted(len(missing), 'parameter')} of "
            f"{type(network).__name__}, "
            f"{missing[0]!r} first; is it a checkpoint of another class?"
        )
    return network


def load_classifier(
    folder: Path, outputs: int, names: Mapping[str, int]
) -> tuple[Any, tuple[str, ...]]:
    """Load a checkpoint with a head of `outputs` scores, a fresh one where it has none such.

    Args:
        names: Class name to number, for a fresh head.

    Returns:
        The network in float32, and the names of its modules that are fresh.

    Raises:
        FileError, ModelError, UnsupportedError: As `load_network`.
    """
    config = load_config(folder)
    kind = network_class(config, folder)
    if kind.__name__.endswith("Classification") and config.num_labels == outputs:
        return load_network(folder), ()
    wanted = dict(names) or {f"LABEL_{number}": number for number in range(outputs)}
    config.id2label = {number: name for name, number in wanted.items()}
    config.label2id = wanted
    config.num_labels = outputs
    auto = _auto_class(config, folder)
    network, info = _load(auto, folder, config, ignore_mismatched_sizes=True)
    heads = head_names(network)
    fresh, lost = set(heads), []
    for name in info["missing_keys"]:
        # A pooler is trained with the head in families that have one.
        before, pooler, _ = f".{name}".partition(".pooler.")
        if pooler:
            fresh.add(f"{before}.pooler".removeprefix("."))
        elif name.partition(".")[0] not in heads:
            lost.append(name)
    if lost:
        raise ModelError(
            f"{folder} has no weights for {counted(len(lost), 'parameter')} of "
            f"{type(network).__name__}, "
            f"{sorted(lost)[0]!r} first"
        )
    return network, tuple(sorted(fresh))


def _auto_class(config: Any, folder: Path) -> Any:
    for auto in (
        transformers.AutoModelForSequenceClassification,
        transformers.AutoModelForImageClassification,
    ):
        if type(config) in auto._model_mapping:
            return auto
    raise UnsupportedError(
        f"{folder} ({config.model_type}) has no form that classifies texts or images in "
        f"transformers {transformers.__version__}"
    )


def _load(kind: Any, folder: Path, config: Any, **options: object) -> tuple[Any, dict[str, Any]]:
    try:
        with quiet_library():
            network, info = kind.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                output_loading_info=True,
                dtype=torch.float32,
                use_safetensors=True,
                **options,
            )
    except (OSError, ValueError, RuntimeError, LookupError, SafetensorError) as error:
        check_activation(folder, config, error, ACT2FN)
        raise ModelError(f"{folder}: weights cannot be loaded: {_line(error)}") from error
    check_layers(folder, network, info["unexpected_keys"])
    return network.eval(), info


def save_network(network: Any, folder: Path) -> None:
    """Write a checkpoint, without what the network carries for its training alone."""
    maps = network._modules.pop(PROJECTIONS, None)
    try:
        with quiet_library():
            network.save_pretrained(folder)
    finally:
        if maps is not None:
            network.add_module(PROJECTIONS, maps)


def has_tokenizer(folder: Path | None) -> bool:
    """Whether a folder has what `irtools` reads text with."""
    return folder is not None and (folder / "tokenizer.json").is_file()


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy tokenizer or image processor from one folder to another."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def fingerprint(folder: Path) -> str:
    """Return sha256 over config and weights of a checkpoint."""
    total = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        total.update(path.name.encode())
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Recognize what the libraries raise where they cannot write; neither raises an OSError.

    Raises:
        FileError: The disk is full, or a limit is reached.
    """
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if not any(sign in str(error) for sign in _UNWRITTEN):
            raise
        raise FileError(f"cannot write to {folder}, is the disk full? ({_line(error)})") from error


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """Keep the library's bars and warnings off the terminal; its errors are raised."""
    logs = transformers.utils.logging
    level, shown = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if shown:
            logs.enable_progress_bar()


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
