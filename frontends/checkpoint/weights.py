"""Checkpoint folder to torch module: safetensors or pickles of plain tensors, and no code."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from irtools.errors import ModelError, OptionError, UnsupportedError
from irtools.frontends.checkpoint.library import import_transformers, quiet
from irtools.frontends.checkpoint.tasks import NetworkUse, find_task, tasks_of
from irtools.frontends.torch import LIBRARY_FAILURES, first_line
from irtools.sources import check_activation, check_layers, note_on_leftovers
from irtools.words import counted

__all__ = ["LoadedCheckpoint", "network_of", "open_checkpoint", "read_config"]


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A module with its weights in float32, and what it is used for.

    Attributes:
        notes: What its user should know of how it was read.
    """

    module: Any
    task: NetworkUse | None
    folder: Path
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """What a message calls it."""
        return f"{self.folder} ({type(self.module).__name__})"


def read_config(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Read `config.json`.

    Raises:
        ModelError: It is not a Transformers config.
        UnsupportedError: It comes with code that the user did not allow to run.
    """
    transformers = import_transformers()
    from huggingface_hub.errors import StrictDataclassError

    try:
        return transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except (*LIBRARY_FAILURES, StrictDataclassError) as error:
        if "trust_remote_code" in str(error):
            raise _needs_code(folder) from error
        raise ModelError(
            f"{folder}/config.json is not a Transformers config: {first_line(error)}"
        ) from error


def open_checkpoint(
    folder: Path,
    *,
    task: str | None = None,
    trust_remote_code: bool = False,
    provided: frozenset[str] = frozenset(),
    classes: int | None = None,
) -> LoadedCheckpoint:
    """Load the network of a checkpoint folder.

    Args:
        folder: With `config.json` and weights.
        task: What the network is for; None: as the config says; a folder of sentence-transformers
            holds an encoder.
        trust_remote_code: Run the Python files of the folder.
        provided: Parameters that the folder may lack, because an adapter provides them.
        classes: Classes of the head that an adapter provides.

    Raises:
        ModelError: Config or weights are damaged, weights are missing, or there are more layers of
            them than the config makes.
        OptionError: A task that the checkpoint is not made for.
        UnsupportedError: A network that only code in the folder defines.
    """
    transformers = import_transformers()
    config = read_config(folder, trust_remote_code=trust_remote_code)
    found, network = _choose(folder, config, task)
    if classes is not None and classes != getattr(config, "num_labels", classes):
        config.num_labels = classes
    kind = getattr(transformers, network, None)
    extra: dict[str, Any] = {}
    if kind is None:
        if not trust_remote_code:
            raise _needs_code(folder, network, transformers)
        kind = getattr(transformers, (found or find_task(config, None, "")[0] or _ANY).auto)
        extra["trust_remote_code"] = True
    load = partial(_load, transformers, kind, folder, config, provided)
    module, missing, unexpected = load(extra)
    if missing and all(name.startswith("pooler.") for name in missing):
        # Checkpoints of a masked language model have no pooler, and sentence embeddings need none.
        module, missing, unexpected = load(extra | {"add_pooling_layer": False})
    missing = [name for name in missing if name not in provided]
    if missing:
        raise _missing_weights(folder, config, network, task, missing)
    unexpected = check_layers(folder, module, unexpected)
    as_saved = type(module).__name__ in (config.architectures or ())
    notes = note_on_leftovers(module, unexpected, as_saved=as_saved)
    return LoadedCheckpoint(module.float().eval(), found, folder, notes)


def network_of(folder: Path, config: Any, task: str | None) -> type | None:
    """Return the class of the network that `open_checkpoint` would load.

    None where only code in the folder defines it.

    Raises:
        OptionError: A task that the checkpoint is not made for.
    """
    return getattr(import_transformers(), _choose(folder, config, task)[1], None)


def _choose(folder: Path, config: Any, task: str | None) -> tuple[NetworkUse | None, str]:
    if task is None and (folder / _SENTENCE_TRANSFORMERS).is_file():
        # The config may still name the class that the encoder was pretrained as.
        task = _ANY.name
    return find_task(config, task, str(folder))


_ANY = NetworkUse("feature-extraction", "AutoModel", "MODEL_MAPPING_NAMES")
_SENTENCE_TRANSFORMERS = "modules.json"


def _load(
    transformers: Any,
    kind: Any,
    folder: Path,
    config: Any,
    provided: frozenset[str],
    extra: dict[str, Any],
) -> tuple[Any, list[str], list[str]]:
    """Return the network, and the names of parameters without weights and of weights without."""
    import torch
    from safetensors import SafetensorError
    from transformers.activations import ACT2FN

    try:
        with quiet():
            module, loaded = kind.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                output_loading_info=True,
                weights_only=True,
                ignore_mismatched_sizes=True,  # They are reported below, by name.
                dtype=torch.float32,
                **extra,
            )
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{folder}: weights are a pickle that holds more than tensors, which is never "
            "unpacked; save the tensors alone, as safetensors"
        ) from error
    except (*LIBRARY_FAILURES, SafetensorError) as error:
        check_activation(folder, config, error, ACT2FN)
        _check_weights_are_there(folder)
        place = _damaged_file(folder) or folder
        raise ModelError(f"{place}: weights cannot be loaded: {first_line(error)}") from error
    other = sorted(found for found in loaded["mismatched_keys"] if found[0] not in provided)
    if other:
        name, shape, wanted = other[0]
        raise ModelError(
            f"{folder}: weights do not fit config.json: {counted(len(other), 'parameter')} of "
            f"another shape, {name!r} first: {list(shape)}, and the config makes it {list(wanted)}"
        )
    return module, sorted(loaded["missing_keys"]), sorted(loaded["unexpected_keys"])


def _check_weights_are_there(folder: Path) -> None:
    """Report a folder without weights.

    Raises:
        ModelError: There are none.
    """
    if not any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()):
        raise ModelError(
            f"{folder}: weights cannot be loaded: there are none; expected model.safetensors or "
            "pytorch_model.bin"
        )


def _damaged_file(folder: Path) -> Path | None:
    """Return the first weight file that is cut off, or no such file at all."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np"):
                pass
        except (OSError, SafetensorError):
            return path
    return None


def _needs_code(folder: Path, network: str = "", transformers: Any = None) -> UnsupportedError:
    what = (
        f"{folder} needs the class {network!r}, which transformers {transformers.__version__} "
        "does not have; code"
        if network
        else f"{folder} comes with its own code, which"
    )
    rest = " in a checkpoint is never run" if network else " is never run"
    return UnsupportedError(f"{what}{rest} unless you allow it (--trust-remote-code)")


def _missing_weights(
    folder: Path, config: Any, network: str, task: str | None, missing: list[str]
) -> Exception:
    # Transformers would fill them with random numbers.
    lost = counted(len(missing), "parameter")
    text = f"{folder} has no weights for {lost} of {network}, {missing[0]!r} first"
    own = (config.architectures or [None])[0]
    if task is None or own == network:
        return ModelError(f"{text}; is it a checkpoint of another class?")
    fitting = [
        name
        for name, listed in tasks_of(config).items()
        if listed == own or name == "feature-extraction"
    ]
    return OptionError(f"{text}; it was made as {own}, tasks that fit: {', '.join(fitting)}")
