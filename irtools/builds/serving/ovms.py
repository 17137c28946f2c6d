"""A configuration and a model repository for OpenVINO Model Server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irtools.builds.serving.base import Served
from irtools.errors import UnsupportedError
from irtools.files import json_text

__all__ = ["check_readable", "server_config", "write_models"]

_STANDARD = frozenset(("", "ai.onnx", "ai.onnx.ml"))
_README = """\
# {model} on OpenVINO Model Server

    docker run --rm -p 8000:8000 -v "$PWD/models:/models" openvino/model_server \\
        --config_path /models/config.json --rest_port 8000

`client.py` asks it:

    {ask}
"""


def check_readable(served: Served) -> None:
    """Refuse an ONNX file with operators that only ONNX Runtime has.

    Raises:
        UnsupportedError: It has one; says which.
    """
    if served.target.startswith("openvino"):
        return
    import onnx

    path = served.release / served.build.name / served.build.main
    graph = onnx.load(path, load_external_data=False).graph
    foreign = next((node for node in graph.node if node.domain not in _STANDARD), None)
    if foreign is not None:
        raise UnsupportedError(
            f"{served.build.name} holds {foreign.domain}:{foreign.op_type}, an operator of ONNX "
            "Runtime: add the target openvino-cpu to irc.toml, build, and name that build"
        )


def write_models(served: Served, folder: Path) -> None:
    """Write `models/`: the configuration, and the model as its version 1.

    Raises:
        UnsupportedError: The server cannot read it.
        OSError: A file cannot be written.
    """
    check_readable(served)
    models = folder / "models"
    served.copy_model(models / served.model / "1")
    (models / "config.json").write_text(json_text(server_config(served)), encoding="utf-8")


def server_config(served: Served) -> dict[str, Any]:
    """Return the configuration; paths are those in the container."""
    model = {
        "name": served.model,
        "base_path": f"/models/{served.model}",
        "target_device": "GPU" if served.target.endswith("-gpu") else "CPU",
        # As the release was timed: one call at a time, on all cores.
        "plugin_config": {"PERFORMANCE_HINT": "LATENCY"},
    }
    return {"model_config_list": [{"config": model}]}


def readme(served: Served, ask: str) -> str:
    """Return how the server is started and asked."""
    return _README.format(model=served.model, ask=ask)
