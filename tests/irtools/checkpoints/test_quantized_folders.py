"""Folders of quantized checkpoints: what contradicts itself, and what is there besides weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from irtools.checkpoints import is_unpacked, plain_checkpoint
from irtools.checkpoints.tensor_files import tensor_files
from irtools.errors import ModelError, UnsupportedError

pytestmark = pytest.mark.torch

NAME = "model.layers.0.mlp.up_proj"
Writer = Callable[..., Path]
GPTQ: Mapping[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
AWQ: Mapping[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 32}


def zeros(kind: str, *shape: int) -> Any:
    import torch

    return torch.zeros(shape, dtype=getattr(torch, kind))


def gptq(**changes: Any) -> dict[str, Any]:
    made = {
        "qweight": zeros("int32", 8, 16),
        "qzeros": zeros("int32", 2, 2),
        "scales": zeros("float16", 2, 16),
        **changes,
    }
    return {f"{NAME}.{name}": value for name, value in made.items() if value is not None}


def packed(bits: int, **weights: Any) -> dict[str, Any]:
    scheme = {"num_bits": bits, "strategy": "group", "group_size": 32, **weights}
    groups = {"group_0": {"weights": scheme}}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": groups,
    }


def codes(*words: int, shape: tuple[int, int] = (16, 64), count: tuple[int, int] = (16, 2)) -> Any:
    import torch

    return {
        f"{NAME}.weight_packed": zeros("int32", *words),
        f"{NAME}.weight_scale": zeros("float16", *count),
        f"{NAME}.weight_shape": torch.tensor(shape),
    }


def state_of(**values: Any) -> dict[str, Any]:
    import torch

    raw = json.dumps({"blocksize": 64, "shape": [4, 32], **values}).encode()
    return {
        f"{NAME}.weight": zeros("uint8", 64, 1),
        f"{NAME}.weight.absmax": zeros("float32", 2),
        f"{NAME}.weight.quant_map": zeros("float32", 16),
        f"{NAME}.weight.quant_state.bitsandbytes__nf4": torch.tensor(list(raw), dtype=torch.uint8),
    }


def infinite() -> Any:
    found = zeros("float16", 2, 16)
    found[0, 0] = float("inf")
    return found


CASES: dict[str, tuple[Any, Mapping[str, Any] | None, str]] = {
    "bits": (gptq, {**GPTQ, "bits": 8}, "holds codes of 4 bits, .* config says 8; give the config"),
    "groups": (gptq, {**GPTQ, "group_size": 128}, "scales of 2 groups for 64 .* groups of 128"),
    "one group": (gptq, {**GPTQ, "group_size": -1}, "scales of 2 groups for 64 .* groups of -1"),
    "no scales": (lambda: gptq(scales=None), GPTQ, r"has no scales \(there are qweight, qzeros\)"),
    "kind": (
        lambda: gptq(qweight=zeros("int64", 8, 16)),
        GPTQ,
        r"qweight is I64 \[8, 16\], expected I32 with 2 axes",
    ),
    "width": (lambda: gptq(qweight=zeros("int32", 8, 15)), GPTQ, r"qweight \[8, 15\] does not fit"),
    "no channels": (lambda: gptq(scales=zeros("float16", 2, 0)), GPTQ, "2 words for 0 output"),
    "g_idx": (
        lambda: gptq(g_idx=zeros("int32", 64) + 7),
        GPTQ,
        r"g_idx of \[64\] numbers groups 7 to 7, expected 64 numbers from 0 to 1",
    ),
    "zero points": (
        lambda: {
            **codes(16, 8),
            f"{NAME}.weight_zero_point": zeros("int8", 16, 5),
            f"{NAME}.weight_g_idx": zeros("int32", 64),
        },
        packed(4),
        r"weight_zero_point \[16, 5\] does not fit scales \[16, 2\]",
    ),
    "zero points of whole numbers": (
        lambda: {
            f"{NAME}.weight": zeros("int8", 16, 64),
            f"{NAME}.weight_scale": zeros("float32", 16, 2),
            f"{NAME}.weight_zero_point": zeros("int8", 16, 3),
        },
        {**packed(8), "format": "int-quantized"},
        r"weight_zero_point \[16, 3\] does not fit scales \[16, 2\]",
    ),
    "a group that is a word": (
        lambda: codes(16, 8),
        packed(4, group_size="32", strategy=None),
        "the quantization config says 4 bits a channel; give the config",
    ),
    "infinite": (lambda: gptq(scales=infinite()), GPTQ, "holds numbers that are not finite"),
    "another method": (gptq, {"quant_method": "fp8"}, "no weight is stored as .* weight_scale_inv"),
    "layout": (gptq, AWQ, "16 words for 16 output channels are not a whole number|codes of 32"),
    "silent": (gptq, None, "is quantized, and config.json has no quantization_config"),
    "words": (lambda: codes(16, 9), packed(4), r"a weight \[16, 64\] in 9 words a row"),
    "scheme": (lambda: codes(16, 8), packed(8), "the quantization config says 8 bits a group of"),
    "shape": (lambda: codes(16, 8, shape=(99, 64)), packed(4), r"weight_shape \[99, 64\] does not"),
    "no groups": (lambda: codes(16, 8), {**packed(4), "config_groups": None}, "no config_groups"),
    "num_bits": (lambda: codes(16, 8), packed(0), "gives no num_bits of 1 to 8: 0"),
    "state": (
        lambda: state_of(shape="wide"),
        {"quant_method": "bitsandbytes"},
        "its quant_state gives no shape: 'wide'",
    ),
    "huge": (
        lambda: state_of(shape=[1 << 30, 1 << 30]),
        {"quant_method": "bitsandbytes"},
        "has .* bytes and .* scales, and there are 64 and 2",
    ),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_contradictions_are_one_clear_line(checkpoint: Writer, case: str) -> None:
    tensors, entry, said = CASES[case]
    folder = checkpoint(tensors(), entry)
    with pytest.raises(ModelError, match=said) as caught, plain_checkpoint(folder):
        pass
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"quant_method": "hqq"}, "quantized (hqq), which is not turned back into floats here"),
        ({"quant_method": "awq", "version": "gemv"}, "awq in the format gemv"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "gptq in the format marlin"),
        ({**packed(4), "format": "nvfp4-pack-quantized"}, "the format nvfp4-pack-quantized"),
        (packed(4, strategy="token"), "the strategy 'token'"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "quantized (bitsandbytes)"),
        ({"bits": 4}, "quantized (no method named)"),
    ],
)
def test_methods_that_are_not_read_are_named(
    checkpoint: Writer, entry: Mapping[str, Any], said: str
) -> None:
    folder = checkpoint(gptq(), entry)
    with pytest.raises(UnsupportedError) as caught, plain_checkpoint(folder):
        pass
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 32, "sym": True}),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 32, "version": "GEMM"}),
    ],
)
def test_files_of_older_tools_are_read(
    checkpoint: Writer, name: str, entry: Mapping[str, Any]
) -> None:
    is_gptq = name == "quantize_config.json"
    folder = checkpoint(gptq() if is_gptq else gptq(qweight=zeros("int32", 64, 2)), None)
    (folder / name).write_text(json.dumps(entry))
    with plain_checkpoint(folder) as plain:
        (note,) = plain.notes
    method = "gptq" if is_gptq else "awq"
    assert note.startswith(f"the weights are quantized ({method}): 1 weight read back into float32")


def test_an_empty_order_of_groups_is_none(checkpoint: Writer) -> None:
    folder = checkpoint(gptq(g_idx=zeros("int32", 0)), GPTQ)
    with plain_checkpoint(folder) as plain:
        assert plain.folder != folder


@pytest.mark.parametrize(
    ("tensors", "entry"),
    [
        (lambda: state_of(blocksize=(1 << 31) - 1), {"quant_method": "bitsandbytes"}),
        (
            lambda: {
                f"{NAME}.weight": zeros("float8_e4m3fn", 16, 64),
                f"{NAME}.weight_scale_inv": zeros("float32", 1, 1),
            },
            {"quant_method": "fp8", "weight_block_size": [1 << 40, 1 << 40]},
        ),
    ],
    ids=["nf4", "fp8"],
)
def test_a_block_larger_than_any_memory_takes_none(
    checkpoint: Writer, tensors: Any, entry: Mapping[str, Any]
) -> None:
    made = {k: v[:1] if k.endswith("absmax") else v for k, v in tensors().items()}
    with plain_checkpoint(checkpoint(made, entry)) as plain:
        assert tensor_files(plain.folder)


def test_plain_floats_with_an_entry_are_read_as_they_are(checkpoint: Writer) -> None:
    folder = checkpoint({f"{NAME}.weight": zeros("float32", 4, 4)}, GPTQ)
    with plain_checkpoint(folder) as plain:
        assert (plain.folder / "model.safetensors").resolve() == folder / "model.safetensors"
        assert "quantization_config" not in (plain.folder / "config.json").read_text()
    assert plain.notes == (
        f"{folder}/config.json speaks of quantized weights (gptq), and they are plain floats: "
        "read as such",
    )


def test_an_entry_of_an_inner_network_counts(checkpoint: Writer) -> None:
    folder = checkpoint(gptq(), None)
    (folder / "config.json").write_text(json.dumps({"text_config": {"quantization_config": GPTQ}}))
    with plain_checkpoint(folder) as plain:
        assert json.loads((plain.folder / "config.json").read_text()) == {"text_config": {}}


def test_other_files_are_there(checkpoint: Writer) -> None:
    folder = checkpoint(gptq(), GPTQ)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with plain_checkpoint(folder) as plain:
        found = {path.name for path in plain.folder.iterdir()}
        assert (plain.folder / "1_Pooling" / "config.json").read_text() == "{}"
    assert found == {
        *("config.json", "tokenizer.json", "1_Pooling"),
        *("model-00001.safetensors", "model.safetensors.index.json"),
    }


def test_a_plain_checkpoint_stays_where_it_is(checkpoint: Writer, tmp_path: Path) -> None:
    folder = checkpoint({f"{NAME}.weight": zeros("float32", 4, 4)}, None)
    assert not is_unpacked(folder)
    for source in (folder, tmp_path, tmp_path / "absent", Path("layers=0,2,5")):
        with plain_checkpoint(source) as plain:
            assert plain.folder == source and plain.notes == ()


def test_pickles_are_not_read(checkpoint: Writer) -> None:
    folder = checkpoint(gptq(), GPTQ)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="and not in safetensors"), plain_checkpoint(folder):
        pass


def test_an_index_names_files_of_the_folder_alone(checkpoint: Writer) -> None:
    folder = checkpoint(gptq(), GPTQ)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    for name in ("../a.safetensors", "/etc/passwd", 7):
        index.write_text(json.dumps({"weight_map": {"x": name}}))
        with pytest.raises(ModelError, match=r"is not a file next to it|cannot be read"):
            tensor_files(folder)
