"""Hazard: what the file is."""

from __future__ import annotations

import json
import os
import pickle
import socket
import zipfile
from pathlib import Path

from .base import Builder, Case, accept, model, of, refuse, weight, write


def _raw(data: bytes) -> Builder:
    return of(lambda: data)


def _zip(folder: Path) -> Path:
    path = write(folder, b"")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return path


class _Touch:
    """Unpickling this would create a file."""

    def __reduce__(self):
        return (os.system, ("touch PWNED",))


def _folder(folder: Path) -> Path:
    (folder / "model.onnx").mkdir(parents=True)
    return folder / "model.onnx"


def _pipe(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "model.onnx")
    return folder / "model.onnx"


def _socket(folder: Path) -> Path:
    path = write(folder, b"").parent / "s.onnx"
    here = Path.cwd()
    os.chdir(path.parent)  # socket paths are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)
    return path


def _link_to(target: str) -> Builder:
    def build(folder: Path) -> Path:
        path = write(folder, b"")
        path.unlink()
        path.symlink_to(target)
        return path

    return build


def _missing(folder: Path) -> Path:
    return write(folder, b"x").with_name("absent.onnx")


def _truncated(percent: float) -> Builder:
    def build() -> bytes:
        data = model().SerializeToString()
        return data[: max(1, int(len(data) * percent / 100))]

    return of(build)


def _safetensors() -> bytes:
    head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(head).to_bytes(8, "little") + head + bytes(4)


def file_cases() -> list[Case]:
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    return [
        refuse("empty_file", _raw(b""), "empty"),
        refuse("git_lfs_pointer", _raw(lfs), "git-lfs pointer"),
        refuse("html_page", _raw(b"<!DOCTYPE html><html>404</html>"), "web page"),
        refuse("html_with_space", _raw(b"\n\n  <html><body>login"), "web page"),
        refuse("xml_file", _raw(b'<?xml version="1.0"?><net/>'), "XML"),
        refuse("json_file", _raw(b'{"model": 1}'), "JSON"),
        refuse("text_file", _raw(b"ir_version: 8\ngraph { }\n" * 20), "text file"),
        refuse("text_utf8", _raw("modèle\n".encode() * 200), "text file"),
        refuse("zip_named_onnx", _zip, "zip archive"),
        refuse("pickle_named_onnx", of(lambda: pickle.dumps(_Touch())), "pickle"),
        refuse("safetensors_named_onnx", of(_safetensors), "safetensors"),
        refuse("gguf_named_onnx", _raw(b"GGUF\x03\0\0\0" + bytes(64)), "GGUF"),
        refuse("hdf5_named_onnx", _raw(b"\x89HDF\r\n\x1a\n" + bytes(64)), "HDF5"),
        refuse("gzip_named_onnx", _raw(b"\x1f\x8b\x08\0" + bytes(64)), "gzip"),
        refuse("ort_format", _raw(b"\x18\0\0\0ORTM" + bytes(64)), "ORT"),
        refuse("random_bytes", _raw(bytes((i * 167 + 13) % 256 for i in range(999))), ""),
        refuse("zeros", _raw(bytes(4096)), ""),
        refuse("is_a_directory", _folder, "not a regular file"),
        refuse("named_pipe", _pipe, "not a regular file"),
        refuse("socket_file", _socket, "not a regular file"),
        refuse("endless_device", _link_to("/dev/zero"), "not a regular file"),
        refuse("null_device", _link_to("/dev/null"), "not a regular file"),
        refuse("dangling_link", _link_to("nowhere.onnx"), "no such file"),
        refuse("link_loop", _link_to("model.onnx"), "model.onnx"),
        refuse("missing_file", _missing, "no such file"),
        *(refuse(f"trunc_{p}", _truncated(p), "") for p in (0.5, 10, 50, 90, 99)),
        refuse("message_of_another_kind", of(lambda: weight().SerializeToString()), ""),
        accept("plain", of(model)),
        accept(
            "unknown_protobuf_field", of(lambda: model().SerializeToString() + b"\xc2\x3e\x01x")
        ),
    ]
