"""What networks of texts take next to ids, mask and types: boxes, glyphs, languages, tasks.

Transformers fills in zeros where such an input is not given, and the network is another one then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["TextInput", "draw_extras", "further_inputs", "note_on_left_out"]


@dataclass(frozen=True)
class TextInput:
    """One more input, [batch, sequence] or [batch, sequence, width].

    Attributes:
        top: Numbers are drawn below it.
        width: Numbers of each token; None: one.
        is_box: They are edges of a box: left, top, right, bottom.
        is_share: Numbers are shares of the page, not integers.
    """

    top: int
    width: int | None = None
    is_box: bool = False
    is_share: bool = False


_LIMIT = 1000
"""Boxes lie on a page of 1000 x 1000 where the config does not say."""

# Not given as a rule: the caches of decoders, other forms of the same input, and what training
# takes. Positions follow from the place of a token.
_USUAL = frozenset(
    {
        *("input_ids", "attention_mask", "token_type_ids", "position_ids", "pixel_values"),
        *("inputs_embeds", "head_mask", "labels", "past_key_values", "cache_position", "use_cache"),
        *("output_attentions", "output_hidden_states", "return_dict", "kwargs", "args"),
        *("encoder_hidden_states", "encoder_attention_mask", "encoder_outputs", "cache"),
        *("start_positions", "end_positions", "next_sentence_label", "sentence_order_label"),
        *("mems", "use_mems", "perm_mask", "target_mapping", "input_mask", "lengths"),
        *("bool_masked_pos", "interpolate_pos_encoding", "logits_to_keep", "num_logits_to_keep"),
        *("is_impossible", "cls_index", "p_mask", "decoder_input_ids", "decoder_attention_mask"),
        *("decoder_inputs_embeds", "decoder_head_mask", "cross_attn_head_mask"),
        *("output_router_logits", "return_loss", "global_attention_mask", "output_norms"),
        *("indices", "cu_seqlens", "max_seqlen", "batch_size", "seq_len", "question_positions"),
        *("decoder_position_ids", "labels_mask", "aggregation_labels", "float_answer"),
        *("numeric_values", "numeric_values_scale", "table_mask"),
    }
)


def further_inputs(config: Any, parameters: Collection[str]) -> dict[str, TextInput]:
    """Return the inputs of this kind that a network has tables for, by name."""
    return {name: made for name, made in _known(config) if name in parameters}


def note_on_left_out(network: str, parameters: Collection[str], taken: Collection[str]) -> str:
    """Name the inputs of `forward` that the export does not have, '' where there are none."""
    left = [name for name in parameters if name not in _USUAL and name not in taken]
    if not left:
        return ""
    return f"left out of the export, as if not given: {', '.join(left)} of {network}"


def draw_extras(
    torch: Any,
    extras: Mapping[str, TextInput],
    draw: Callable[[int, int], Mapping[str, Any]],
    batch: int,
    length: int,
) -> dict[str, Any]:
    """Return texts with these inputs; at padding they are 0."""
    inputs = dict(draw(batch, length))
    batch, length = inputs["input_ids"].shape
    generator = torch.Generator().manual_seed(batch * 1000 + length + 1)
    mask = inputs["attention_mask"]
    for name, extra in extras.items():
        shape = (batch, length) if extra.width is None else (batch, length, extra.width)
        if extra.is_box:
            # The right edge is not left of the left one: tables of widths have no entry for that.
            corners = torch.randint(0, extra.top // 2, (2, batch, length, 2), generator=generator)
            found = torch.cat((corners[0], corners.sum(0)), dim=-1)
        else:
            found = torch.randint(0, extra.top, shape, generator=generator)
        found = found * (mask if extra.width is None else mask[..., None])
        inputs[name] = found.float() / extra.top if extra.is_share else found
    return inputs


def _known(config: Any) -> Iterator[tuple[str, TextInput]]:
    def number(name: str, default: int = 0) -> int:
        return int(getattr(config, name, None) or default)

    page = number("max_2d_position_embeddings", _LIMIT)
    yield "bbox", TextInput(page, 4, is_box=True, is_share=config.model_type == "bros")
    if getattr(config, "use_task_id", False):
        yield "task_type_ids", TextInput(number("task_type_vocab_size", 1))
    if number("n_langs") > 1 and getattr(config, "use_lang_emb", True):
        yield "langs", TextInput(number("n_langs"))
    if depth := number("max_depth"):
        yield "xpath_tags_seq", TextInput(number("max_xpath_tag_unit_embeddings", 1), depth)
        yield "xpath_subs_seq", TextInput(number("max_xpath_subs_unit_embeddings", 1), depth)
    if getattr(config, "enable_shape", False):
        yield "input_shape_ids", TextInput(number("shape_vocab_size", 1))
    if getattr(config, "enable_pronunciation", False):
        yield "input_pronunciation_ids", TextInput(number("pronunciation_vocab_size", 1))
