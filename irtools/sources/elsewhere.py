"""What to say of a source that is elsewhere, or is of a format that irtools does not read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["how_to_convert", "how_to_fetch"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUBS = ("huggingface.co", "www.huggingface.co", "hf.co")
_CONVERT: Mapping[str, str] = {
    ".tflite": "tf2onnx makes ONNX of it: python -m tf2onnx.convert --tflite FILE --output "
    "model.onnx",
    ".pb": "tf2onnx makes ONNX of TensorFlow graphs: python -m tf2onnx.convert --saved-model "
    "FOLDER --output model.onnx",
    ".h5": "tf2onnx makes ONNX of Keras models: python -m tf2onnx.convert --keras FILE --output "
    "model.onnx",
    ".pt": "weights alone say nothing of the network: give the folder with config.json, or "
    "module:function with --weights FILE --example inputs.npz",
    ".safetensors": "weights alone say nothing of the network: give the folder with config.json, "
    "or module:function with --weights FILE --example inputs.npz",
    ".xml": "give the ONNX file or checkpoint that the OpenVINO model was made from",
    ".mlmodel": "give the model that the Core ML file was made from",
    ".pdmodel": "paddle2onnx makes ONNX of Paddle models",
    ".engine": "an engine of TensorRT cannot be read back: give the ONNX file it was built from",
}
_OURS = (".onnx", ".ort", ".gguf", ".npz", ".json")
_LIKE: Mapping[str, str] = {
    ".pth": ".pt",
    ".bin": ".pt",
    ".ckpt": ".pt",
    ".keras": ".h5",
    ".hdf5": ".h5",
    ".mlpackage": ".mlmodel",
    ".plan": ".engine",
    ".trt": ".engine",
    ".blob": ".xml",
}


def how_to_convert(source: str) -> str:
    """Return how ONNX is made of a file of another format; empty where nothing is known."""
    suffix = Path(source).suffix.lower()
    return _CONVERT.get(_LIKE.get(suffix, suffix), "")


def how_to_fetch(source: str) -> str:
    """Return how a source that is not on this disk gets there; empty where it is not an address.

    Addresses, and names as the Hugging Face hub has them: `owner/name`, or `name` alone.
    """
    if "://" in source:
        return f"{source} is an address, and irc downloads nothing: {_fetch_command(source)}"
    if _HUB_NAME.fullmatch(source) is None or _names_a_file(source):
        return ""
    return (
        f"{source} is not a file or folder here, and irc downloads nothing: a model of the Hugging "
        f"Face hub is fetched with `{_hub_command(source)}` and given as {_folder(source)}"
    )


def _fetch_command(address: str) -> str:
    parts = urlsplit(address)
    path = [part for part in parts.path.split("/") if part]
    if parts.hostname in _HUBS and len(path) == 2:
        name = "/".join(path)
        return f"fetch it with `{_hub_command(name)}` and give {_folder(name)}"
    return "fetch the file first (`curl -LO ADDRESS`) and give its name"


def _names_a_file(source: str) -> bool:
    """Whether a name means a file, by its suffix or by the folder that it is in."""
    path = Path(source)
    known = path.suffix.lower() in {*_CONVERT, *_LIKE, *_OURS}
    return known or (len(path.parts) > 1 and path.parent.is_dir())


def _hub_command(name: str) -> str:
    return f"hf download {name} --local-dir {_folder(name)}"


def _folder(name: str) -> str:
    return f"./{name.rpartition('/')[2]}"
