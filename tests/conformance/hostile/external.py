"""Hazard: weights outside the model file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto

from .base import Builder, Case, accept, graph, model, node, refuse, value, weight, write
from .tensors import wherever

W_BYTES = weight().raw_data


def make_external(name: str = "w", **entries: object) -> onnx.TensorProto:
    tensor = weight(name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, item in entries.items():
        tensor.external_data.add(key=key, value=str(item))
    return tensor


def _ext(
    prepare: Callable[[Path], object] = lambda inner: (inner / "w.bin").write_bytes(W_BYTES),
    edit: Callable[[onnx.TensorProto], object] = lambda tensor: None,
    **entries: object,
) -> Builder:
    """A model whose weight is outside; `prepare` makes the files in the model's folder."""

    def build(folder: Path) -> Path:
        tensor = make_external(**({"location": "w.bin"} | entries))
        edit(tensor)
        path = write(folder, model(graph(weights=[tensor, weight("b", (3,))])))
        prepare(path.parent)
        return path

    return build


def _copy_to(name: str, data: bytes = W_BYTES) -> Callable[[Path], object]:
    def prepare(inner: Path) -> None:
        path = inner / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return prepare


def _symlink(name: str, target: str) -> Callable[[Path], object]:
    def prepare(inner: Path) -> None:
        (inner / name).symlink_to(target)

    return prepare


def _hard_link(inner: Path) -> None:
    (inner / "w.bin").hardlink_to(inner.parent / "secret.bin")


def _hard_link_inside(inner: Path) -> None:
    (inner / "first.bin").write_bytes(W_BYTES)
    (inner / "w.bin").hardlink_to(inner / "first.bin")


def _link_chain(inner: Path) -> None:
    (inner / "w.bin").symlink_to("hop.bin")
    (inner / "hop.bin").symlink_to("../secret.bin")


def _linked_folder(inner: Path) -> None:
    (inner / "sub").symlink_to("..")


def _hub_cache(folder: Path) -> Path:
    """A model hub's cache: a snapshot of links into one folder of blobs."""
    path = _ext(location="model.onnx_data")(folder)
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "0a1b"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "aaaa").write_bytes(path.read_bytes())
    (blobs / "bbbb").write_bytes(W_BYTES)
    (snapshot / "model.onnx").symlink_to("../../blobs/aaaa")
    (snapshot / "model.onnx_data").symlink_to("../../blobs/bbbb")
    return snapshot / "model.onnx"


def _hub_cache_escape(folder: Path) -> Path:
    path = _hub_cache(folder)
    (path.parent / "model.onnx_data").unlink()
    (path.parent / "model.onnx_data").symlink_to("../../secret.bin")
    return path


def _shared_file(folder: Path) -> Path:
    tensors = [
        make_external("w", location="all.bin", offset=64, length=48),
        make_external("b", location="all.bin", offset=0, length=12),
    ]
    del tensors[1].dims[:]
    tensors[1].dims.extend([3])
    path = write(folder, model(graph(weights=tensors)))
    (path.parent / "all.bin").write_bytes(bytes(64) + W_BYTES)
    return path


def _packed(folder: Path) -> Path:
    tensor = make_external("k", location="w.bin", length=6)
    tensor.data_type = TensorProto.INT4
    body = [node("Identity", "k", "k2"), node("Neg", "x", "y")]
    outputs = [value("y"), value("k2", (4, 3), TensorProto.INT4)]
    path = write(folder, model(graph(body, outputs=outputs, weights=[tensor]), opset=21))
    (path.parent / "w.bin").write_bytes(bytes(range(6)))
    return path


def external_cases() -> list[Case]:
    locations = {
        "absolute": ("/etc/hostname", "absolute"),
        "parent": ("../secret.bin", "out of"),
        "parent_inside": ("a/../../secret.bin", "out of"),
        "parent_behind_dot": ("./../secret.bin", "out of"),
        "parent_that_returns": ("../model/w.bin", "out of"),
        "backslash": ("..\\secret.bin", "holds one of"),
        "drive": ("C:secret.bin", "holds one of"),
        "url": ("file:///etc/hostname", "holds one of"),
        "address_marker": ("*/_ORT_MEM_ADDR_/*", "holds one of"),
        "zero_byte": ("w.bin\0/../../secret.bin", "control character"),
        "line_break": ("w\n.bin", "control character"),
        "empty": ("", "empty"),
        "folder": (".", "not a regular file"),
        "home": ("~/secret.bin", "no such file"),
        "missing": ("absent.bin", "absent.bin"),
        "below_a_file": ("w.bin/x", "w.bin"),
        "long": ("a" * 5000, "initializer 'w'"),
    }
    climb = wherever(lambda: make_external(location="../secret.bin"))
    twice = lambda t: t.external_data.add(key="location", value="w.bin")  # noqa: E731
    raw_too = lambda t: setattr(t, "raw_data", W_BYTES)  # noqa: E731
    strings = lambda t: setattr(t, "data_type", TensorProto.STRING)  # noqa: E731
    no_location = lambda t: t.external_data.pop(0)  # noqa: E731
    return [
        *(refuse(f"ext_{k}", _ext(location=loc), needle) for k, (loc, needle) in locations.items()),
        *(refuse(f"ext_in_{k}", b, "out of") for k, b in climb.items()),
        refuse("ext_no_location", _ext(edit=no_location), "empty"),
        refuse("ext_location_twice", _ext(edit=twice), "twice"),
        refuse("ext_unknown_key", _ext(__class__="x"), "__class__"),
        refuse("ext_offset_negative", _ext(offset=-8), "offset"),
        refuse("ext_offset_text", _ext(offset="0x10"), "offset"),
        refuse("ext_offset_unicode", _ext(offset="\u0661"), "offset"),
        refuse("ext_offset_beyond", _ext(offset=4096), "48 bytes"),
        refuse("ext_offset_huge", _ext(offset=10**18), "48 bytes"),
        refuse("ext_offset_digits", _ext(offset="9" * 5000), "offset"),
        refuse("ext_length_short", _ext(length=44), "44"),
        refuse("ext_length_long", _ext(length=52), "52"),
        refuse("ext_length_huge", _ext(length=2**50), str(2**50)),
        refuse("ext_length_negative", _ext(length=-1), "length"),
        refuse("ext_file_short", _ext(_copy_to("w.bin", W_BYTES[:40])), "40 bytes"),
        refuse("ext_file_empty", _ext(_copy_to("w.bin", b"")), "0 bytes"),
        refuse(
            "ext_is_folder", _ext(lambda inner: (inner / "w.bin").mkdir()), "not a regular file"
        ),
        refuse("ext_is_pipe", _ext(lambda inner: os.mkfifo(inner / "w.bin")), "not a regular file"),
        refuse("ext_is_device", _ext(_symlink("w.bin", "/dev/zero")), "outside"),
        refuse("ext_link_out", _ext(_symlink("w.bin", "../secret.bin")), "outside"),
        refuse("ext_link_absolute", _ext(_symlink("w.bin", "/etc/hostname")), "outside"),
        refuse("ext_link_chain", _ext(_link_chain), "outside"),
        refuse("ext_link_dangling", _ext(_symlink("w.bin", "nowhere")), "no such file"),
        refuse("ext_link_loop", _ext(_symlink("w.bin", "w.bin")), "w.bin"),
        refuse("ext_folder_link_out", _ext(_linked_folder, location="sub/secret.bin"), "outside"),
        refuse("ext_hard_link_out", _ext(_hard_link), "hard link"),
        refuse("ext_hub_cache_escape", _hub_cache_escape, "outside"),
        refuse("ext_and_raw", _ext(edit=raw_too), "inside the file and outside"),
        refuse("ext_strings", _ext(edit=strings), "strings"),
        accept("ext_ok", _ext(offset=0, length=48)),
        accept("ext_no_length", _ext()),
        accept("ext_checksum", _ext(checksum="da39a3ee5e6b4b0d3255bfef95601890afd80709")),
        accept("ext_ok_subdir", _ext(_copy_to("sub/deep/w.bin"), location="sub/deep/w.bin")),
        accept("ext_dot_slash", _ext(location="./w.bin")),
        accept("ext_dots_in_name", _ext(_copy_to("w..v2...bin"), location="w..v2...bin")),
        accept(
            "ext_spaces_and_emoji",
            _ext(_copy_to("my w \U0001f600.bin"), location="my w \U0001f600.bin"),
        ),
        accept(
            "ext_link_inside",
            _ext(lambda i: (_copy_to("real.bin")(i), _symlink("w.bin", "real.bin")(i))),
        ),
        accept("ext_hard_link_inside", _ext(_hard_link_inside)),
        accept("ext_shared_file", _shared_file),
        accept("ext_hub_cache", _hub_cache),
        accept("ext_packed", _packed),
    ]
