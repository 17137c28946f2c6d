"""What serves a release: the app of FastAPI is asked, the others are read by their own schemas."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

import irtools
from irtools.builds.serving.base import Served, served_builds
from irtools.builds.serving.client import client_files
from irtools.builds.serving.triton import model_config
from irtools.builds.serving.write import SERVERS, write_serving
from irtools.errors import DataError, UnsupportedError, UsageError
from irtools.model import ValueInfo
from irtools.targets import Isa

FIXED = [ValueInfo("x", "uint8", (1, 3, 8, 8)), ValueInfo("n", "float16", ())]
OVMS_SCHEMA = Path(__file__).with_name("ovms_config.schema.json")


@pytest.fixture
def release(text_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Isa, "detect", classmethod(lambda cls: Isa.AVX2))
    folder = tmp_path / "release"
    shutil.copytree(text_release, folder)
    return folder


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"made_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.serving
def test_the_app_answers(release: Path, tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    files = write_serving(release, "fastapi", tmp_path / "app")
    assert [path.name for path in files] == ["Dockerfile", "app.py", "requirements.txt"]
    with TestClient(_imported(tmp_path / "app/app.py").app) as client:
        told = client.get("/health").json()
        assert told["build"] == "bag/clean/avx2" and told["classes"] == ["crude", "grain", "trade"]
        found = client.post("/predict", json={"texts": ["oil oil", ["corn", "ship corn"]]}).json()
        assert [one["class"] for one in found["predictions"]] == ["crude", "grain"]
        assert found["predictions"][0]["scores"] == {"crude": 18, "grain": 2, "trade": 0}
        vector = client.post("/encode", json={"texts": ["oil"]}).json()["embeddings"][0]
        np.testing.assert_allclose(vector, np.array([9, 1, 0]) / np.sqrt(82), rtol=1e-6)
        feeds = {"input_ids": [[2, 3]], "attention_mask": [[1, 1]]}
        assert client.post("/run", json={"inputs": feeds}).json()["outputs"]["logits"] == [
            [10, 10, 0]
        ]
        for path, body, code in (
            ("/predict", {"texts": []}, 422),
            ("/predict", {"texts": ["oil"] * 65}, 422),
            ("/encode", {"text": "oil"}, 422),
            ("/run", {"inputs": {"input_ids": [[2]]}}, 400),
            ("/run", {"inputs": {**feeds, "input_ids": [["oil"]]}}, 400),
            ("/run", {"inputs": {**feeds, "input_ids": [[2], [3, 4]]}}, 400),
        ):
            assert client.post(path, json=body).status_code == code, (path, body)


@pytest.mark.serving
@pytest.mark.slow
def test_the_app_is_served(release: Path, tmp_path: Path) -> None:
    write_serving(release, "fastapi", tmp_path / "app", "bag/clean/sse")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        served = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--fd", str(taken.fileno())],
            cwd=tmp_path / "app",
            pass_fds=[taken.fileno()],
            env={**os.environ, "IRTOOLS_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        try:
            import httpx

            # The socket listens already, so that the question waits for the app.
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/predict"
            answer = httpx.post(url, json={"texts": ["ship"]}, timeout=60)
        finally:
            served.terminate()
            served.wait()
    assert answer.json()["predictions"][0]["class"] == "trade"


@pytest.mark.triton
def test_triton_reads_its_configuration(release: Path, tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

    write_serving(release, "triton", tmp_path / "triton", "bag/clean/sse")
    place = tmp_path / "triton/models/bag"
    config = text_format.Parse((place / "config.pbtxt").read_text(), ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("bag", "onnxruntime", 32)
    assert (place / "1" / config.default_model_filename).is_file()
    assert [(one.name, one.data_type, list(one.dims)) for one in config.input] == [
        ("input_ids", DataType.TYPE_INT64, [-1]),
        ("attention_mask", DataType.TYPE_INT64, [-1]),
    ]
    hidden, logits = config.output
    assert (list(hidden.dims), list(logits.dims), hidden.label_filename) == ([-1, 3], [3], "")
    assert (place / logits.label_filename).read_text() == "crude\ngrain\ntrade\n"
    assert config.HasField("dynamic_batching")


@pytest.mark.triton
def test_triton_gets_all_axes_where_the_batch_is_fixed(release: Path) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

    (served,) = served_builds(release, "bag/clean/sse")
    odd = replace(served, inputs=(FIXED[0], ValueInfo('a "b"', "bfloat16", ("n",))), outputs=())
    config = text_format.Parse(model_config(odd, "model.onnx"), ModelConfig())
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [1, 3, 8, 8]
    assert config.input[1].name == 'a "b"' and config.input[1].data_type == DataType.TYPE_BF16
    assert config.instance_group[0].kind == ModelInstanceGroup.KIND_CPU
    rows = replace(served, inputs=(ValueInfo("x", "float32", ("n",)),), outputs=())
    config = text_format.Parse(model_config(rows, "model.onnx"), ModelConfig())
    assert config.max_batch_size == 32 and list(config.input[0].dims) == [1]
    assert config.input[0].HasField("reshape") and not config.input[0].reshape.shape
    for wrong in (ValueInfo("x", "float32", None), ValueInfo("x", "seq(int64)", (1,))):
        with pytest.raises(UnsupportedError, match="x "):
            model_config(replace(served, inputs=(wrong,)), "model.onnx")


@pytest.mark.cyclonedx
def test_the_model_server_reads_its_configuration(release: Path, tmp_path: Path) -> None:
    import jsonschema

    write_serving(release, "ovms", tmp_path / "ovms", "bag/clean/avx2")
    models = tmp_path / "ovms/models"
    config = json.loads((models / "config.json").read_text(encoding="utf-8"))
    schema = json.loads(OVMS_SCHEMA.read_text(encoding="utf-8"))
    jsonschema.validate(config, schema)
    (model,) = (one["config"] for one in config["model_config_list"])
    assert model["base_path"] == "/models/bag" and (models / "bag/1/model.onnx").is_file()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model_config_list": [{"config": {**model, "nme": ""}}]}, schema)


def test_operators_of_one_runtime_are_not_for_another(release: Path, tmp_path: Path) -> None:
    import onnx

    (served,) = served_builds(release, "bag/clean/sse")
    path = release / "bag/clean/sse/model.onnx"
    model = onnx.load(path)
    model.graph.node[0].domain = "com.microsoft"
    onnx.save(model, path)
    from irtools.builds.serving.ovms import check_readable

    with pytest.raises(UnsupportedError, match=r"com\.microsoft:Gather.*openvino-cpu"):
        check_readable(served)
    # The release is not what was built, either.
    with pytest.raises(DataError, match="other bytes"):
        write_serving(release, "ovms", tmp_path / "ovms", "bag/clean/sse")
    assert not (tmp_path / "ovms").exists()


class _Server(BaseHTTPRequestHandler):
    """Answers as the KServe protocol says, by the model that `answer` runs."""

    answer: Any

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        feeds = {
            one["name"]: np.reshape(np.array(one["data"], one["datatype"].lower()), one["shape"])
            for one in asked["inputs"]
        }
        outputs = [
            {"name": name, "shape": array.shape, "data": array.ravel().tolist()}
            for name, array in type(self).answer(feeds).items()
        ]
        self.send_response(200 if self.path == "/v2/models/bag/infer" else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"outputs": outputs}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url(release: Path) -> Iterator[str]:
    with irtools.load(release, "bag/clean/sse") as model:
        server = HTTPServer(("127.0.0.1", 0), type("S", (_Server,), {"answer": model.run}))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_client_asks_as_the_model_was_asked(
    release: Path, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_serving(release, "triton", tmp_path / "triton", "bag/clean/sse")
    client = _imported(tmp_path / "triton/client.py")
    feeds, count = client.read(["ship corn ship", "oil"])
    # tokenizer.json is set up: it pads.
    assert feeds["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]] and count == 2
    client.show(client.infer(url, feeds), count)
    assert capsys.readouterr().out == "trade 18.0000\ncrude 9.0000\n"


def test_a_client_of_arrays_and_of_a_fixed_batch(release: Path, tmp_path: Path) -> None:
    (served,) = served_builds(release, "bag/clean/sse")
    image = replace(served, inputs=(FIXED[0],), outputs=(FIXED[1],), tokenizer={})
    (tmp_path / "client.py").write_text(client_files(image)["client.py"], encoding="utf-8")
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 3, 8, 8)))
    feeds, count = _imported(tmp_path / "client.py").read(str(tmp_path / "x.npz"))
    assert feeds["x"].dtype == np.uint8 and count == 1
    two = tuple(replace(one, shape=(2, 4)) for one in served.inputs)
    for name, text in client_files(replace(served, inputs=two)).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    client = _imported(tmp_path / "client.py")
    feeds, count = client.read(["oil"])
    assert feeds["input_ids"].tolist() == [[2, 0, 0, 0]] * 2 and count == 1
    with pytest.raises(SystemExit, match="takes 2 texts"):
        client.read(["oil"] * 3)


def test_what_cannot_be_served_is_told_and_leaves_nothing(release: Path, tmp_path: Path) -> None:
    for server in ("triton", "ovms"):
        with pytest.raises(UsageError, match=r"--build, bag/clean/sse or bag/clean/avx2"):
            write_serving(release, server, tmp_path / "new")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").touch()
    for server in SERVERS:
        with pytest.raises(UsageError, match="is there already"):
            write_serving(release, server, taken)
    assert not (tmp_path / "new").exists() and list(taken.iterdir()) == [taken / "mine"]
    (served,) = served_builds(release, "bag/clean/sse")
    hostile = msgspec.structs.replace(served.build, name='bag/"""/sse')
    with pytest.raises(DataError, match="is not MODEL"):
        Served.of(release, hostile)


def test_an_app_elsewhere_names_the_release_and_has_no_dockerfile(
    release: Path, tmp_path: Path
) -> None:
    write_serving(release, "fastapi", tmp_path / "deep/er/app", "bag/clean")
    text = (tmp_path / "deep/er/app/app.py").read_text(encoding="utf-8")
    assert 'parent / "../../../release"' in text and 'BUILD = "bag/clean"' in text
    assert not (tmp_path / "deep/er/app/Dockerfile").exists()
    write_serving(release, "fastapi", tmp_path / "app")
    copied = re.findall(r"COPY (\S+)", (tmp_path / "app/Dockerfile").read_text())
    assert all((tmp_path / name).exists() for name in copied)


def test_values_read_back() -> None:
    for one in (
        *FIXED,
        ValueInfo("x", "", None),
        ValueInfo('a, "b"', "float32", ('n, "m"', None, "past + 1", 3)),
        ValueInfo("y", "seq(float32)", None),
    ):
        assert ValueInfo.parse(str(one)) == one
    with pytest.raises(DataError, match="NAME: TYPE"):
        ValueInfo.parse("x")
