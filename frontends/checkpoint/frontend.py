"""Transformers checkpoint folders."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from irtools.checkpoints import PlainCheckpoint, plain_checkpoint
from irtools.errors import OptionError, UnsupportedError
from irtools.files import scratch_folder
from irtools.frontends.checkpoint.adapters import Adapter, read_adapter, task_of
from irtools.frontends.checkpoint.decoder import describe_decoder
from irtools.frontends.checkpoint.encoder import describe_encoder
from irtools.frontends.checkpoint.image_text import describe_image_text, takes_both
from irtools.frontends.checkpoint.library import quiet
from irtools.frontends.checkpoint.sentence import with_sentence_embedding
from irtools.frontends.checkpoint.seq2seq import PARTS, describe_part
from irtools.frontends.checkpoint.switching import Switched, attach_all, read_switched
from irtools.frontends.checkpoint.tokenizer import make_tokenizer
from irtools.frontends.checkpoint.weights import (
    LoadedCheckpoint,
    network_of,
    open_checkpoint,
    read_config,
)
from irtools.frontends.checkpoint.whole_seq2seq import describe_whole, is_pair, reads_both
from irtools.frontends.torch import (
    EXAMPLE_SIZES,
    TorchSource,
    Trial,
    compare,
    convert,
    in_file,
    translate_errors,
)
from irtools.model import Model, note_grids
from irtools.sources import Claim, LoadOptions, QuantizerRequest, companions_in

__all__ = ["TransformersFrontend", "export_plain"]


class TransformersFrontend:
    """A checkpoint folder with `config.json` and weights, exported through torch.

    Inputs keep their usual names (`input_ids`, `attention_mask`, `token_type_ids`,
    `pixel_values`, `input_values`, `past_key_values.0.key`), batch and sequence are dynamic and
    named, the samples of a sound too; task,
    `id2label`, `problem_type` and special token ids go into the model's metadata. Nothing is
    downloaded, pickles are read as plain tensors only, and no code from the folder runs unless the
    caller says so. Quantized weights are read back into float32.
    """

    name: ClassVar[str] = "transformers"
    summary: ClassVar[str] = "a Transformers checkpoint folder (config.json and weights)"

    def accepts(self, source: str) -> Claim:
        return "own" if (Path(source) / "config.json").is_file() else None

    def parts(self, source: str, options: LoadOptions) -> tuple[str, ...]:
        folder = Path(source)
        config = read_config(folder, trust_remote_code=options.trust_remote_code)
        if not config.is_encoder_decoder:
            return ()
        adapters = _adapters(options)
        network = network_of(folder, config, options.task or task_of(adapters))
        return PARTS if is_pair(config, network) else ()

    def companions(self, source: str) -> tuple[Path, ...]:
        return companions_in(Path(source))

    def load(self, source: str, options: LoadOptions = LoadOptions()) -> Model:
        if options.example is not None or options.weights is not None:
            raise UnsupportedError(
                "a checkpoint folder provides its own inputs and weights; leave out --example and "
                "--weights"
            )
        with plain_checkpoint(Path(source), mapped=True) as plain:
            model = export_plain(plain, options)
            model.companions = {**make_tokenizer(plain.folder), **model.companions}
        return model


def export_plain(plain: PlainCheckpoint, options: LoadOptions) -> Model:
    """Make the model of a checkpoint.

    Raises:
        IrtoolsError: As `Frontend.load`.
    """
    with scratch_folder("export") as scratch:
        with quiet():
            model, trials, where = _export(plain, options, scratch)
        # Modules and graphs have cycles; what they hold is as large as the model.
        gc.collect()
        compare(model, trials, where)
    model.source = plain.source
    model.notes = (*plain.notes, *map(plain.named, model.notes))
    return model


def _export(
    plain: PlainCheckpoint, options: LoadOptions, scratch: Path
) -> tuple[Model, Sequence[Trial], str]:
    """Return the model, what it must reproduce, and what a message calls its source."""
    checkpoint, adapters = _open(plain.folder, options)
    with translate_errors(checkpoint.where):
        source = _describe(checkpoint, options)
    if options.adapters_as == "merged":
        for adapter in adapters:
            adapter.merge_into(source.module, lambda: source.run(source.inputs(*EXAMPLE_SIZES)))
    if options.quantizer is not None:
        source = _quantized(source, plain.folder, options.quantizer)
    switched = _next_to_weights(source, adapters, options)
    with translate_errors(source.where):
        trials = source.trials() if options.check else ()
    model = convert(source, opset=options.opset)
    model.ir.graph.name = source.module.config.model_type
    model.notes = (*checkpoint.notes, *source.notes)
    if switched:
        adapted = attach_all(model, switched, source.where, options.adapters_as)
        trials = adapted if options.adapters_as == "constants" else (*trials, *adapted)
    note_grids(model.ir, _grids_by_all_names(source.module, plain.found.grids))
    return in_file(model, scratch), trials, source.where


def _next_to_weights(
    source: TorchSource, adapters: Sequence[Adapter], options: LoadOptions
) -> tuple[Switched, ...]:
    """Read the adapters that are to stay next to the weights; none where they are merged."""
    if options.adapters_as == "merged":
        return ()
    return read_switched(source, adapters, check=options.check)


def _quantized(source: TorchSource, folder: Path, request: QuantizerRequest) -> TorchSource:
    """Return a source whose module has the weights that a quantizer chose."""
    if source.module.config.is_encoder_decoder:
        raise UnsupportedError(
            f"{source.where} is an encoder-decoder, and --quantizer takes encoders and decoders; "
            "quantize its models with `int8` or `int4`"
        )
    from irtools.frontends.quantizers import quantized_module

    module, notes = quantized_module(source.module, folder, request)
    return replace(source, module=module, notes=(*source.notes, *notes))


def _adapters(options: LoadOptions) -> list[Adapter]:
    """Read the adapters.

    Raises:
        OptionError: There are none to stay next to the weights, or several as constants.
    """
    merges = options.adapters_as == "merged"
    if not merges and not options.adapters:
        raise OptionError(f"--adapters-as {options.adapters_as} needs --adapter DIR")
    if options.adapters_as == "constants" and len(options.adapters) > 1:
        raise OptionError(
            f"--adapters-as constants holds one adapter, and {len(options.adapters)} are given: "
            "several go as inputs"
        )
    return [read_adapter(path, weight, merges=merges) for path, weight in options.adapters]


def _open(folder: Path, options: LoadOptions) -> tuple[LoadedCheckpoint, list[Adapter]]:
    """Load a checkpoint and the adapters for it, which may provide its head."""
    adapters = _adapters(options)
    checkpoint = open_checkpoint(
        folder,
        task=options.task or task_of(adapters),
        trust_remote_code=options.trust_remote_code,
        provided=frozenset().union(*(adapter.provided for adapter in adapters)),
        classes=next((a.classes for a in adapters if a.classes is not None), None),
    )
    return checkpoint, adapters


def _describe(checkpoint: LoadedCheckpoint, options: LoadOptions) -> TorchSource:
    module, where = checkpoint.module, checkpoint.where
    metadata = _metadata(checkpoint)
    if is_pair(module.config, type(module)):
        if options.part is None:
            raise UnsupportedError(
                f"{checkpoint.folder} is an encoder-decoder ({module.config.model_type}), which "
                f"makes two models: irc export {checkpoint.folder} -o DIR/, then take one of them"
            )
        return describe_part(module, options.part, where, metadata, with_past=options.with_past)
    if reads_both(module) and not options.with_past:
        task = None if checkpoint.task is None else checkpoint.task.name
        return describe_whole(module, task, where, metadata)
    if takes_both(module) and not options.with_past:
        return describe_image_text(module, checkpoint.folder, where, metadata)
    if not options.with_past:
        source = describe_encoder(module, checkpoint.folder, where, metadata)
        return source if options.task else with_sentence_embedding(source, checkpoint.folder)
    if checkpoint.task is None or checkpoint.task.name != "text-generation":
        task = "no known task" if checkpoint.task is None else f"{checkpoint.task.name!r}"
        raise OptionError(
            f"{where} is made for {task}, and only text generation has a cache; leave out "
            "--with-past or give --task text-generation"
        )
    return describe_decoder(module, where, metadata)


def _metadata(checkpoint: LoadedCheckpoint) -> dict[str, str]:
    config = checkpoint.module.config
    found: dict[str, str] = {"model_type": config.model_type}
    if checkpoint.task is not None:
        found["task"] = checkpoint.task.name
        if checkpoint.task.has_classes:
            found["id2label"] = _json({str(k): v for k, v in (config.id2label or {}).items()})
            if config.problem_type:
                found["problem_type"] = config.problem_type
    generation = getattr(checkpoint.module, "generation_config", None)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
        value = getattr(generation, name, None)
        value = getattr(config, name, None) if value is None else value
        if value is not None:
            found[name] = _json(value)
    return found


def _grids_by_all_names(module: Any, grids: Mapping[str, str]) -> dict[str, str]:
    """Return the grids under each name that their parameters have; tied ones have several."""
    owners: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    found: dict[str, str] = {}
    for names in owners.values():
        known = [grids[name] for name in names if name in grids]
        found |= dict.fromkeys(names, known[0]) if known else {}
    return found


def _json(value: Mapping[str, Any] | int | list[int]) -> str:
    return json.dumps(value, ensure_ascii=False)
