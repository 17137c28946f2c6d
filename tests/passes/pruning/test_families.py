"""Real architectures, tiny: what is pruned equals the torch model with the same units zeroed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from irtools.model import Model, verify
from irtools.passes.cleanup.initializers import DeduplicateInitializers
from irtools.passes.pruning.prune import Prune
from irtools.targets import RunnerOptions, find_target

pytestmark = pytest.mark.torch

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 100,
}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
_WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_mel_bins": 8,
    "max_source_positions": 10,
    "vocab_size": 100,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "mlp_ratio": 2,
    "image_size": 28,
    "patch_size": 14,
    "layerscale_value": 0.5,
}
_DEBERTA = {
    **_SIZES,
    "relative_attention": True,
    "max_relative_positions": 16,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "type_vocab_size": 0,
    "max_position_embeddings": 32,
}


@dataclass(frozen=True)
class Family:
    """An architecture, and where the units of its groups are summed up.

    Attributes:
        name: Class in transformers, without `Model` and `Config`.
        config: Arguments of the configuration.
        groups: Number of groups that must be found.
        sinks: Pattern of a group's name to the modules, as a pattern, that sum its units up.
        options: Arguments of `forward`.
        module: Part of the model to take.
    """

    name: str
    config: Mapping[str, Any]
    groups: int
    sinks: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""


_BERT_FFN = {r"(layer\.\d)\.intermediate": r"{}\.output\.dense"}
_LLAMA = {r"(layers\.\d)\.self_attn": r"{}\.self_attn\.o_proj", r"(layers\.\d)\.mlp": r"{}.*down"}
_FAMILIES = {
    "llama": Family("Llama", {**_SIZES, "num_key_value_heads": 2}, 4, _LLAMA, {"use_cache": False}),
    "qwen3": Family(
        "Qwen3",
        {**_SIZES, "num_key_value_heads": 2, "head_dim": 8},
        4,
        _LLAMA,
        {"use_cache": False},
    ),
    "roberta": Family(
        "Roberta",
        {**_SIZES, "max_position_embeddings": 34},
        4,
        {r"(layer\.\d)\.attention": r"{}\.attention\.output\.dense", **_BERT_FFN},
    ),
    "mpnet": Family(
        "MPNet",
        {**_SIZES, "max_position_embeddings": 34},
        4,
        {r"(layer\.\d)\.attention": r"{}\.attention\.attn\.o$", **_BERT_FFN},
    ),
    "albert": Family(
        "Albert",
        {**_SIZES, "embedding_size": 16, "max_position_embeddings": 32},
        2,
        {
            r"(layers\.0)\.attention": r"{}\.attention\.dense",
            r"(layers\.0)\.ffn": r"{}\.ffn_output",
        },
    ),
    # One expanded index is what all layers gather by, so their heads go together.
    "deberta": Family(
        "DebertaV2", _DEBERTA, 3, {**_BERT_FFN, r"(layer)$": r"attention\.output\.dense"}
    ),
    "dinov2": Family(
        "Dinov2",
        {**_VIT, "use_swiglu_ffn": True},
        4,
        {
            r"(layer\.\d)\.attention": r"{}\.attention\.o_proj",
            r"(layer\.\d)\.mlp": r"{}\.mlp\.down",
        },
    ),
    "whisper": Family(
        "Whisper",
        _WHISPER,
        5,
        {
            r"(layers\.\d)\.self_attn": r"{}\.self_attn\.out_proj",
            r"(layers\.\d)\.fc1": r"{}\.fc2",
            r"()conv1": r"conv2",
        },
        module="encoder",
    ),
}
_BY_TORCHSCRIPT = {
    "llama": _FAMILIES["llama"],
    "t5": Family(
        "T5Encoder",
        _T5,
        4,
        {
            r"(block\.\d)\.layer\.0": r"{}\.layer\.0\.SelfAttention\.o$",
            r"(block\.\d)\.layer\.1": r"{}\.layer\.1\.DenseReluDense\.wo",
        },
    ),
}


def _inputs(family: Family) -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    if family.name == "Dinov2":
        return {"pixel_values": torch.randn(2, 3, 28, 28, generator=generator)}
    if family.name == "Whisper":
        return {"input_features": torch.randn(2, 8, 20, generator=generator)}
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[1, 7:] = 0
    ids = torch.randint(3, 100, (2, 10), generator=generator)
    return {"input_ids": ids, "attention_mask": mask}


def _make(family: Family) -> Any:
    import torch
    import transformers

    config = getattr(transformers, f"{family.name.removesuffix('Encoder')}Config")
    model = getattr(transformers, f"{family.name}Model")(config(**family.config)).eval()
    if family.module:
        model = model.get_submodule(family.module)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def _wrapped(model: Any, family: Family, names: tuple[str, ...]) -> Any:
    import torch

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m = model

        def forward(self, *values: Any) -> Any:
            return self.m(**dict(zip(names, values, strict=True)), **family.options)[0]

    return First().eval()


def _export(model: Any, family: Family, path: Any, dynamo: bool) -> Model:
    import torch

    inputs = _inputs(family)
    names = tuple(inputs)
    module = _wrapped(model, family, names)
    if dynamo:
        axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=30)}
        dims = [axes if v.dim() == 2 else {0: axes[0]} for v in inputs.values()]
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=20,
            input_names=list(names),
            output_names=["y"],
            dynamic_shapes=(tuple(dims),),
            verbose=False,
        )
        program.save(path, external_data=False)
    else:
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            path,
            dynamo=False,
            opset_version=17,
            input_names=list(names),
            output_names=["y"],
            dynamic_axes={n: {0: "batch", 1: "sequence"} for n in names},
        )
    return Model.load(path)


def _mask(model: Any, family: Family, subject: str, units: int, kept: list[int]) -> None:
    import torch

    pattern, found = next(
        (sink, match)
        for name, sink in family.sinks.items()
        if (match := re.search(name, subject)) is not None
    )
    wanted = re.compile(pattern.format(re.escape(found.group(1))))
    modules = [m for n, m in model.named_modules() if wanted.search(n) and hasattr(m, "weight")]
    assert modules, subject
    removed = sorted(set(range(units)) - set(kept))
    for module in modules:
        width = module.weight.shape[1] // units
        columns = torch.tensor([u * width + i for u in removed for i in range(width)])
        with torch.no_grad():
            module.weight.index_fill_(1, columns, 0.0)


def _check(family: Family, path: Any, make_context: Callable[..., Any], dynamo: bool) -> None:
    import torch

    torch_model = _make(family)
    model = _export(torch_model, family, path, dynamo)
    ctx = make_context("ort-cpu")
    DeduplicateInitializers().run(model.ir, ctx)
    interface = model.interface
    result = Prune(ratio=0.25, round_to=4, scope="local").run(model.ir, ctx)
    verify(model.ir, interface=interface)
    assert result.plan is not None and len(result.plan.decisions) == family.groups, result.notes
    for decision in result.plan.decisions:
        units, kept = decision.data["units"], decision.data["kept"]
        _mask(torch_model, family, decision.subject, units, list(kept))
    inputs = _inputs(family)
    with torch.no_grad():
        expected = torch_model(**inputs, **family.options)[0].numpy()
    for target in ("ort-cpu", "openvino-cpu"):
        with find_target(target).runner(model, RunnerOptions(exact=True, threads=1)) as runner:
            found = runner.run({name: inputs[name].numpy() for name in runner.input_names})["y"]
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4, err_msg=target)


@pytest.mark.openvino
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _BY_TORCHSCRIPT)
def test_a_pruned_model_of_torchscript_is_the_masked_one(name, tmp_path, make_context):
    _check(_BY_TORCHSCRIPT[name], tmp_path / "m.onnx", make_context, dynamo=False)


@pytest.mark.slow
@pytest.mark.openvino
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _FAMILIES)
def test_a_pruned_model_of_dynamo_is_the_masked_one(name, tmp_path, make_context):
    _check(_FAMILIES[name], tmp_path / "m.onnx", make_context, dynamo=True)
