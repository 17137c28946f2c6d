"""Encoder-decoders that read one text and write none: classifiers and extractors of answers.

They stay one model with the inputs and outputs of an encoder. BART's classifier (Lewis et al. 2020,
section 3) gives the text to the decoder too, shifted by one, and classifies the decoder's state at
the last `</s>`. The network selects that state by a mask whose number of entries no exporter knows;
here it is found by its position, which is the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from irtools.errors import UnsupportedError
from irtools.frontends.checkpoint.encoder import sequence_limit, texts, within
from irtools.frontends.torch import CHECK_SIZES, PlainTrial, Tensors, TorchSource

__all__ = ["describe_whole", "is_pair", "reads_both"]

_NAMES = ("input_ids", "attention_mask")
_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "text-classification": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
}

# They end a text with the token of its language, and start the decoder with it.
_STARTS_WITH_LANGUAGE = frozenset({"mbart", "plbart"})


def is_pair(config: Any, network: type | None) -> bool:
    """Whether a network is exported as encoder and decoder, which text is generated with.

    Args:
        network: Its class; None where only the folder's code knows it.
    """
    if not getattr(config, "is_encoder_decoder", False):
        return False
    generates = getattr(network, "can_generate", None)
    return generates is None or bool(generates())


def reads_both(module: Any) -> bool:
    """Whether a network without a cache has a decoder; some classifiers have the encoder alone."""
    takes = "decoder_input_ids" in inspect.signature(module.forward).parameters
    return bool(module.config.is_encoder_decoder) and takes


def describe_whole(
    module: Any, task: str | None, where: str, metadata: Mapping[str, str]
) -> TorchSource:
    """Describe an encoder-decoder that is exported as one model.

    Args:
        module: With a body that holds both halves, and a head.
        task: What it is for.

    Raises:
        UnsupportedError: It has no head.
    """
    import torch

    config = module.config
    outputs = _OUTPUTS.get(task or "")
    if outputs is None:
        raise UnsupportedError(
            f"{where} is an encoder-decoder without a head; with --task text2text-generation and "
            "-o DIR/ its encoder is a model of its own"
        )
    config.return_dict, config.use_cache = True, False
    limits = sequence_limit(config)
    axes = {name: {0: "batch", 1: "sequence"} for name in _NAMES}
    make = partial(within, partial(_texts, torch, config), limits.get("sequence"))
    at_end = hasattr(module, "classification_head")

    def trials() -> list[PlainTrial]:
        return [_trial(torch, module, outputs, make, sizes) for sizes in CHECK_SIZES]

    return TorchSource(
        module,
        make,
        axes,
        outputs,
        where,
        limits,
        forward=partial(_classify, module) if at_end else partial(_named, outputs),
        make_trials=trials,
        metadata=metadata,
    )


def _texts(torch: Any, config: Any, batch: int, length: int) -> Tensors:
    """Return seeded texts as pairs have them: two `</s>` in each row, one after its last token."""
    inputs = texts(torch, _NAMES, config.vocab_size, config.pad_token_id, batch, length)
    ids, mask, end = inputs["input_ids"], inputs["attention_mask"], config.eos_token_id
    other = next(n for n in range(3) if n not in (end, config.pad_token_id))
    ids = torch.where((ids == end) & (mask == 1), other, ids)
    ids[:, 2] = end
    ids[torch.arange(batch), mask.sum(1) - 1] = end
    return {"input_ids": ids, "attention_mask": mask}


def _trial(
    torch: Any,
    module: Any,
    outputs: tuple[str, ...],
    make: Callable[[int, int], Tensors],
    sizes: tuple[int, int],
) -> PlainTrial:
    """Run the network as it is, not as it is exported."""
    inputs = make(*sizes)
    with torch.inference_mode():
        found = module(**inputs)
    return PlainTrial(
        {name: tensor.numpy() for name, tensor in inputs.items()},
        {name: found[name].float().numpy() for name in outputs},
        f"batch {sizes[0]}, sequence {inputs['input_ids'].shape[1]}",
    )


def _named(outputs: tuple[str, ...], call: Callable[..., Any], inputs: Tensors) -> list[Any]:
    found = call(**inputs)
    return [found[name] for name in outputs]


def _classify(module: Any, _: Callable[..., Any], inputs: Tensors) -> list[Any]:
    """Return the logits, [B, classes]."""
    import torch

    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    body = module.get_submodule(module.base_model_prefix)
    states = body(**inputs, decoder_input_ids=_shifted(torch, module.config, ids)).last_hidden_state
    place = torch.arange(ids.shape[1])
    # The last </s>; of a text without, the last token.
    rank = torch.where(ids == module.config.eos_token_id, place + ids.shape[1], place * mask)
    last = rank.argmax(1)
    return [module.classification_head(states[torch.arange(ids.shape[0]), last])]


def _shifted(torch: Any, config: Any, ids: Any) -> Any:
    """Return what the decoder reads, [B, S]: the text after a token that starts it."""
    if config.model_type in _STARTS_WITH_LANGUAGE:
        start = ids.gather(1, (ids != config.pad_token_id).sum(1, keepdim=True) - 1)
    else:
        start = config.decoder_start_token_id
    # Not from a slice of S - 1: that one may be a single token is a case of its own for torch.
    after = torch.nn.functional.pad(ids, (1, 0))[:, :-1]
    return torch.where(torch.arange(ids.shape[1]) == 0, start, after)
