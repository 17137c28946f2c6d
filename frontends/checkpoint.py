"""Transformers checkpoint folders: encoders for text and images, and decoders without a cache."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from irtools.errors import MissingExtraError, ModelError, UnsupportedError
from irtools.frontend import LoadOptions

if TYPE_CHECKING:
    from irtools.frontends._torch_export import TorchSource
    from irtools.model import Model

__all__ = ["TransformersFrontend"]

_COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "preprocessor_config.json",
    "config.json",
)
# Position tables of these families start behind the padding token.
_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"})


class TransformersFrontend:
    """A checkpoint folder with `config.json` and safetensors, exported through torch.

    Inputs keep their usual names (`input_ids`, `attention_mask`, `token_type_ids`,
    `pixel_values`), batch and sequence are dynamic and named, `id2label` goes into the model's
    metadata. Nothing is downloaded and no code from the folder runs.
    """

    name: ClassVar[str] = "transformers"
    summary: ClassVar[str] = "a Transformers checkpoint folder (config.json, safetensors)"

    def accepts(self, source: str) -> bool:
        return (Path(source) / "config.json").is_file()

    def companions(self, source: str) -> tuple[Path, ...]:
        folder = Path(source)
        return tuple(folder / name for name in _COMPANIONS if (folder / name).is_file())

    def load(self, source: str, options: LoadOptions = LoadOptions()) -> Model:
        if options.example is not None or options.weights is not None:
            raise UnsupportedError(
                "a checkpoint folder brings its own inputs and weights; leave out --example and "
                "--weights"
            )
        try:
            from irtools.frontends._torch_export import export
        except ImportError as error:
            raise MissingExtraError("exporting a checkpoint", "torch") from error
        described = _describe(Path(source))
        model = export(described, opset=options.opset, check=options.check)
        labels = getattr(described.module.config, "id2label", None)
        if labels and "logits" in described.outputs:
            model.ir.metadata_props["id2label"] = json.dumps(
                {str(key): value for key, value in labels.items()}, ensure_ascii=False
            )
        model.ir.graph.name = described.module.config.model_type
        model.source = Path(source)
        return model


def _describe(folder: Path) -> TorchSource:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtraError("exporting a checkpoint", "torch") from error
    from irtools.frontends._torch_export import EXAMPLE_SIZES, TorchSource, tensors_of

    module = _load_module(transformers, folder)
    config = module.config
    names = _input_names(module)
    make: Callable[[int, int], Mapping[str, Any]]
    if "pixel_values" in names:
        size = _image_size(config)
        make = partial(_images, torch, getattr(config, "num_channels", 3), size)
        axes, limits = {"pixel_values": {0: "batch"}}, {}
    else:
        make = partial(_texts, torch, names, config.vocab_size, getattr(config, "pad_token_id", 0))
        axes = {name: {0: "batch", 1: "sequence"} for name in names}
        limits = _sequence_limit(config)
    with torch.inference_mode():
        outputs = tuple(tensors_of(module(**make(*EXAMPLE_SIZES))))
    return TorchSource(module, make, axes, outputs, limits, f"{folder} ({type(module).__name__})")


def _load_module(transformers: Any, folder: Path) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder}/config.json is no Transformers config: {_line(error)}"
        ) from error
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedError(
            f"{folder} is an encoder-decoder ({config.model_type}); only encoders and decoders "
            "are exported"
        )
    architecture = (config.architectures or ["AutoModel"])[0]
    kind = getattr(transformers, architecture, None)
    if kind is None:
        raise UnsupportedError(
            f"{folder} wants the class {architecture!r}, which transformers "
            f"{transformers.__version__} does not have; code in a checkpoint is never run"
        )
    if hasattr(config, "use_cache"):
        config.use_cache = False
    from safetensors import SafetensorError

    try:
        with _no_bars(transformers):
            module, loaded = kind.from_pretrained(
                folder, config=config, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: weights cannot be loaded: {_line(error)}") from error
    missing = sorted(loaded["missing_keys"])
    if missing:
        # Transformers would fill them with random numbers.
        raise ModelError(
            f"{folder} has no weights for {len(missing)} parameters of {architecture}, "
            f"{missing[0]!r} first; is it a checkpoint of another class?"
        )
    return module.float().eval()


@contextlib.contextmanager
def _no_bars(transformers: Any) -> Iterator[None]:
    """Keep the library's progress bar off the terminal, as it was found."""
    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _input_names(module: Any) -> tuple[str, ...]:
    import inspect

    parameters = inspect.signature(module.forward).parameters
    if "pixel_values" in parameters:
        return ("pixel_values",)
    if "input_ids" not in parameters:
        raise UnsupportedError(
            f"{type(module).__name__} takes {', '.join(parameters)}; expected input_ids or "
            "pixel_values"
        )
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in parameters and getattr(module.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return tuple(names)


def _sequence_limit(config: Any) -> dict[str, int]:
    longest = getattr(config, "max_position_embeddings", None)
    if not isinstance(longest, int) or longest < 0:
        return {}
    if config.model_type in _OFFSET_POSITIONS:
        longest -= (config.pad_token_id or 0) + 1
    return {"sequence": longest}


def _image_size(config: Any) -> tuple[int, int]:
    size = getattr(config, "image_size", 224)
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _texts(
    torch: Any,
    names: tuple[str, ...],
    vocabulary: int,
    padding: int | None,
    batch: int,
    length: int,
) -> dict[str, Any]:
    """Seeded token ids; every row but the first ends in padding."""
    padding = padding or 0
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    lengths = length - (torch.arange(batch) * length) // (2 * batch)
    mask = (torch.arange(length) < lengths[:, None]).long()
    ids = torch.randint(0, vocabulary, (batch, length), generator=generator)
    # A padding id inside the text would move the positions of families that count from it.
    ids = torch.where(ids == padding, (padding + 1) % vocabulary, ids)
    inputs = {
        "input_ids": ids.where(mask == 1, padding),
        "attention_mask": mask,
        "token_type_ids": (torch.arange(length) >= length // 2).long() * mask,
    }
    return {name: inputs[name] for name in names}


def _images(torch: Any, channels: int, size: tuple[int, int], batch: int, _: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(batch)
    return {"pixel_values": torch.randn(batch, channels, *size, generator=generator)}


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
