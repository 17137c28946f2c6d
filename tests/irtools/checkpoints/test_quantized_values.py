"""Quantized weights are what their codes and scales stand for, to the last bit.

The references are the formulas of AutoGPTQ, AutoAWQ, compressed-tensors and bitsandbytes in torch,
in float32. Any word is a valid row of codes, so that random words are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irtools.checkpoints import plain_checkpoint
from irtools.model import NF4_LEVELS

pytestmark = pytest.mark.torch

NAME = "model.layers.0.mlp.up_proj"
Writer = Callable[..., Path]


def read(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    with plain_checkpoint(folder) as plain:
        assert "quantization_config" not in json.loads((plain.folder / "config.json").read_text())
        files = sorted(plain.folder.glob("*.safetensors"))
        return {name: array for file in files for name, array in load_file(file).items()}


def read_weight(folder: Path) -> np.ndarray:
    found = read(folder)
    assert list(found) == [f"{NAME}.weight"] and found[f"{NAME}.weight"].dtype == np.float32
    return found[f"{NAME}.weight"]


def words(*shape: int, seed: int = 0) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(1 << 31), 1 << 31, shape, generator=generator).to(torch.int32)


def scales(*shape: int, kind: str = "float16") -> Any:
    import torch

    values = torch.rand(shape, generator=torch.Generator().manual_seed(9)) * 0.02 + 1e-4
    return values.to(getattr(torch, kind))


def fields(packed: Any, bits: int) -> Any:
    """Cut the last axis into fields of `bits`, as one long number with the lowest bits first."""
    import torch

    rows = packed.reshape(-1, packed.shape[-1]).tolist()
    count = packed.shape[-1] * 32 // bits
    made = []
    for row in rows:
        number = sum((word & 0xFFFFFFFF) << (32 * place) for place, word in enumerate(row))
        made.append([number >> (bits * place) & ((1 << bits) - 1) for place in range(count)])
    return torch.tensor(made).reshape(*packed.shape[:-1], count)


def gptq(qweight: Any, qzeros: Any, scale: Any, g_idx: Any, bits: int, shift: int) -> np.ndarray:
    """AutoGPTQ's `scales[g_idx] * (weight - zeros[g_idx])`, transposed."""
    codes = fields(qweight.T.contiguous(), bits).T
    zeros = (fields(qzeros, bits) + shift) & ((1 << bits) - 1)
    wanted = scale.float()[g_idx] * (codes - zeros[g_idx]).float()
    found: np.ndarray = wanted.T.contiguous().numpy()
    return found


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
def test_gptq(checkpoint: Writer, bits: int, form: str) -> None:
    import torch

    qweight, qzeros = words(64 * bits // 32, 32), words(2, 32 * bits // 32, seed=1)
    scale, g_idx = scales(2, 32), torch.arange(64, dtype=torch.int32) // 32
    tensors = {"qweight": qweight, "qzeros": qzeros, "scales": scale, "g_idx": g_idx}
    entry = {"quant_method": "gptq", "bits": bits, "group_size": 32, "checkpoint_format": form}
    folder = checkpoint({f"{NAME}.{k}": v for k, v in tensors.items()}, entry)
    wanted = gptq(qweight, qzeros, scale, g_idx, bits, 1 if form == "gptq" else 0)
    np.testing.assert_array_equal(read_weight(folder), wanted)


def test_gptq_in_the_order_of_activations(checkpoint: Writer) -> None:
    import torch

    g_idx = torch.randperm(64, generator=torch.Generator().manual_seed(3)).to(torch.int32) // 16
    qweight, qzeros, scale = words(8, 16), words(4, 2, seed=1), scales(4, 16)
    tensors = {"qweight": qweight, "qzeros": qzeros, "scales": scale, "g_idx": g_idx}
    entry = {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True}
    folder = checkpoint({f"{NAME}.{k}": v for k, v in tensors.items()}, entry)
    np.testing.assert_array_equal(
        read_weight(folder), gptq(qweight, qzeros, scale, g_idx, 4, shift=1)
    )


@pytest.mark.parametrize(
    ("form", "shift"), [("auto_round:auto_gptq", 1), ("auto_round:gptqmodel", 0), ("auto_round", 0)]
)
def test_auto_round(checkpoint: Writer, form: str, shift: int) -> None:
    import torch

    qweight, qzeros, scale = words(8, 16), words(2, 2, seed=1), scales(2, 16)
    tensors = {"qweight": qweight, "qzeros": qzeros, "scales": scale}
    entry = {"quant_method": "auto-round", "packing_format": form, "bits": 4, "group_size": 32}
    folder = checkpoint({f"{NAME}.{k}": v for k, v in tensors.items()}, entry)
    groups = torch.arange(64) // 32
    np.testing.assert_array_equal(
        read_weight(folder), gptq(qweight, qzeros, scale, groups, 4, shift=shift)
    )


def test_auto_round_gives_layers_bits_of_their_own(checkpoint: Writer) -> None:
    import torch

    qweight, qzeros, scale = words(16, 16), words(4, 4, seed=1), scales(4, 16)
    tensors = {"qweight": qweight, "qzeros": qzeros, "scales": scale}
    entry = {
        "quant_method": "auto-round",
        "bits": 4,
        "group_size": 32,
        "extra_config": {NAME: {"bits": 8, "group_size": 16}},
    }
    folder = checkpoint({f"{NAME}.{k}": v for k, v in tensors.items()}, entry)
    np.testing.assert_array_equal(
        read_weight(folder), gptq(qweight, qzeros, scale, torch.arange(64) // 16, 8, shift=1)
    )


@pytest.mark.parametrize(
    "entry",
    [
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"},
        {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 4},
    ],
)
def test_awq(checkpoint: Writer, entry: Mapping[str, Any]) -> None:
    """After `unpack_awq`, `reverse_awq_order` and `dequantize_gemm` of AutoAWQ."""
    import torch

    packed = {"qweight": words(64, 3), "qzeros": words(2, 3, seed=1), "scales": scales(2, 24)}
    order = torch.arange(24).view(-1, 8)[:, [0, 4, 1, 5, 2, 6, 3, 7]].reshape(-1)
    shifts = torch.arange(0, 32, 4)
    codes, zeros = (
        ((packed[n][:, :, None] >> shifts) & 15).reshape(packed[n].shape[0], -1)[:, order]
        for n in ("qweight", "qzeros")
    )
    scale = packed["scales"].float().repeat_interleave(32, dim=0)
    wanted = (codes - zeros.repeat_interleave(32, dim=0)).float() * scale
    folder = checkpoint({f"{NAME}.{k}": v for k, v in packed.items()}, entry)
    np.testing.assert_array_equal(read_weight(folder), wanted.T.numpy())


def groups_entry(form: str, **weights: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": groups}


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("zeros", ["none", "packed", "int8"])
def test_packed_codes_of_compressed_tensors(checkpoint: Writer, bits: int, zeros: str) -> None:
    import torch

    packed, scale = words(16, 64 * bits // 32), scales(16, 2, kind="bfloat16")
    tensors = {"packed": packed, "scale": scale, "shape": torch.tensor([16, 64])}
    half = 1 << (bits - 1)
    points = torch.zeros(16, 2, dtype=torch.int64)
    if zeros == "packed":
        tensors["zero_point"] = words(-(-16 * bits // 32), 2, seed=1)
        points = fields(tensors["zero_point"].T.contiguous(), bits)[:, :16].T - half
    elif zeros == "int8":
        points = torch.arange(32).reshape(16, 2) % half - half // 2
        tensors["zero_point"] = points.to(torch.int8)
    codes = fields(packed, bits)[:, :64] - half
    spread = lambda x: x.repeat_interleave(32, dim=1)  # noqa: E731
    wanted = (codes - spread(points)).float() * spread(scale.float())
    entry = groups_entry("pack-quantized", num_bits=bits, strategy="group", group_size=32)
    folder = checkpoint({f"{NAME}.weight_{k}": v for k, v in tensors.items()}, entry)
    np.testing.assert_array_equal(read_weight(folder), wanted.numpy())


@pytest.mark.parametrize(
    ("weights", "shape", "block"),
    [
        ({"strategy": "channel"}, (20, 1), (1, 48)),
        ({"strategy": "tensor"}, (1,), (20, 48)),
        ({"strategy": "group", "group_size": 16}, (20, 3), (1, 16)),
        ({"strategy": "block", "block_structure": [16, 32]}, (2, 2), (16, 32)),
    ],
)
@pytest.mark.parametrize("form", ["int-quantized", "float-quantized"])
def test_whole_numbers_of_compressed_tensors(
    checkpoint: Writer, form: str, weights: Mapping[str, Any], shape: tuple[int, ...], block: Any
) -> None:
    import torch

    weight = torch.randn(20, 48, generator=torch.Generator().manual_seed(1)) * 50
    kind = torch.int8 if form == "int-quantized" else torch.float8_e4m3fn
    stored, scale = weight.to(kind), scales(*shape, kind="float32")
    tensors = {"weight": stored, "weight_scale": scale, "input_scale": torch.ones(1)}
    folder = checkpoint(
        {f"{NAME}.{k}": v for k, v in tensors.items()}, groups_entry(form, num_bits=8, **weights)
    )
    grid = scale.reshape(-1, 1) if scale.ndim == 1 else scale
    spread = grid.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[:20, :48]
    np.testing.assert_array_equal(read_weight(folder), (stored.float() * spread).numpy())


@pytest.mark.parametrize("nested", [False, True])
def test_nf4_of_bitsandbytes(checkpoint: Writer, nested: bool) -> None:
    """After `dequantize_4bit` and `dequantize_blockwise` of bitsandbytes."""
    import torch

    generator = torch.Generator().manual_seed(2)
    # The last block is not full, and neither is the last one of the scales.
    shape, block, outer = (30, 50), 64, 16
    blocks = -(-1500 // block)
    packed = torch.randint(0, 256, (750, 1), generator=generator, dtype=torch.uint8)
    state: dict[str, Any] = {"quant_type": "nf4", "blocksize": block, "shape": list(shape)}
    tensors = {"weight": packed, "weight.quant_map": torch.tensor(NF4_LEVELS)}
    absmax = torch.rand(blocks, generator=generator)
    if nested:
        levels = torch.linspace(-1, 1, 256)
        codes = torch.randint(0, 256, (blocks,), generator=generator, dtype=torch.uint8)
        scale = torch.rand(-(-blocks // outer), generator=generator)
        absmax = levels[codes.long()] * scale.repeat_interleave(outer)[:blocks] + 0.1234567
        state |= {"nested_blocksize": outer, "nested_offset": 0.1234567, "nested_dtype": "float32"}
        tensors |= {"weight.nested_quant_map": levels, "weight.nested_absmax": scale}
    tensors["weight.absmax"] = codes if nested else absmax
    raw = json.dumps(state).encode()
    tensors["weight.quant_state.bitsandbytes__nf4"] = torch.tensor(list(raw), dtype=torch.uint8)
    folder = checkpoint(
        {f"{NAME}.{k}": v for k, v in tensors.items()},
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    )
    flat = torch.empty(1500, dtype=torch.int64)
    flat[0::2], flat[1::2] = packed.reshape(-1).long() >> 4, packed.reshape(-1).long() & 15
    wanted = torch.tensor(NF4_LEVELS)[flat] * absmax.repeat_interleave(block)[:1500]
    np.testing.assert_array_equal(read_weight(folder), wanted.reshape(shape).numpy())


@pytest.mark.parametrize("blocks", [True, False])
def test_fp8(checkpoint: Writer, blocks: bool) -> None:
    import torch

    weight = torch.randn(20, 40, generator=torch.Generator().manual_seed(0))
    stored, scale = weight.to(torch.float8_e4m3fn), scales(*((2, 3) if blocks else (1,)))
    entry = {"quant_method": "fp8", "weight_block_size": [16, 16] if blocks else None}
    tensors = {f"{NAME}.weight": stored, f"{NAME}.weight_scale_inv": scale.float()}
    spread = scale.float() if not blocks else scale.float().repeat_interleave(16, 0)[:20]
    spread = spread if not blocks else spread.repeat_interleave(16, 1)[:, :40]
    found = read_weight(checkpoint(tensors, entry))
    np.testing.assert_array_equal(found, (stored.float() * spread).numpy())


def test_other_tensors_are_kept(checkpoint: Writer) -> None:
    import torch

    tensors = {
        f"{NAME}.qweight": words(8, 16),
        f"{NAME}.qzeros": words(2, 2),
        f"{NAME}.scales": scales(2, 16),
        f"{NAME}.bias": scales(16),
        "model.norm.weight": scales(16, kind="bfloat16"),
        "model.positions": torch.arange(4),
    }
    found = read(checkpoint(tensors, {"quant_method": "gptq", "bits": 4, "group_size": 32}))
    assert sorted(found) == sorted(
        ["model.norm.weight", "model.positions", f"{NAME}.bias", f"{NAME}.weight"]
    )
    np.testing.assert_array_equal(
        found["model.norm.weight"], tensors["model.norm.weight"].float().numpy()
    )
    assert found["model.positions"].dtype == np.int64 and found[f"{NAME}.bias"].dtype == np.float32
