"""A FastAPI app for a release: `app.py`, its requirements and a Dockerfile."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template

from irtools.builds.serving.base import Served
from irtools.errors import UsageError
from irtools.version import __version__

__all__ = ["fastapi_files"]

_APP = '''\
"""Serves $model of a release that irtools built.

    pip install -r requirements.txt
    uvicorn app:app --port 8000          # http://localhost:8000/docs to try it

The release is read once, at the start, and the build for this machine's CPU is taken.
IRTOOLS_RELEASE names another folder than that next to this file, IRTOOLS_THREADS the threads of
a call. Start several processes (--workers) to answer several calls at a time.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Lock
from typing import $typing

import irtools
import numpy as np
from fastapi import FastAPI, HTTPException
from pydantic import $pydantic

RELEASE = os.environ.get("IRTOOLS_RELEASE") or Path(__file__).parent / $release
BUILD = $build
THREADS = int(os.environ.get("IRTOOLS_THREADS", "0")) or None

_one_at_a_time = Lock()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep the model open while the app runs."""
    with irtools.load(RELEASE, BUILD, threads=THREADS) as model:
        app.state.model = model
        yield


app = FastAPI(title="$model", version=$version, lifespan=lifespan)


def ask(method: Callable[..., Any], *args: Any) -> Any:
    """Call the model; what it cannot take is the caller's mistake."""
    try:
        with _one_at_a_time:
            return method(*args)
    except irtools.IrtoolsError as error:
        raise HTTPException(400, str(error)) from error


@app.get("/health")
def health() -> dict[str, Any]:
    """Say which build answers, and what it takes."""
    model = app.state.model
    inputs = [str(spec) for spec in model.inputs]
    return {"status": "ok", "build": model.name, "inputs": inputs, "classes": model.classes}

$endpoints
class Arrays(BaseModel):
    """Arrays as nested lists, by name."""

    inputs: dict[str, Any]


@app.post("/run")
def run(body: Arrays) -> dict[str, Any]:
    """Return all outputs for arrays; /health names the inputs."""
    types = {spec.name: spec.dtype for spec in app.state.model.inputs}
    try:
        feeds = {name: np.array(value, types.get(name)) for name, value in body.inputs.items()}
    except (ValueError, TypeError, OverflowError) as error:
        raise HTTPException(400, f"an input is not an array of numbers: {error}") from error
    outputs = ask(app.state.model.run, feeds)
    return {"outputs": {name: plain(array) for name, array in outputs.items()}}


def plain(array: np.ndarray) -> Any:
    """Return nested lists; JSON has no numbers that are not finite."""
    if array.dtype.kind in "biuOS":
        return array.tolist()
    numbers = array.astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, None).tolist()
'''
_TEXTS = '''
MOST_TEXTS = 64
Text = Annotated[str, Field(max_length=100_000)]


class Texts(BaseModel):
    """Texts, or pairs of texts."""

    texts: Annotated[list[Text | tuple[Text, Text]], Field(min_length=1, max_length=MOST_TEXTS)]

'''
_PREDICT = '''
@app.post("/predict")
def predict(body: Texts) -> dict[str, Any]:
    """Return the class of each text, and the model's score of every class."""
    model = app.state.model
    rows = ask(model.scores, body.texts)
    names = [model.class_name(number) for number in range(rows.shape[1])]
    return {
        "predictions": [
            {"class": names[row.argmax()], "scores": dict(zip(names, plain(row), strict=True))}
            for row in rows
        ]
    }

'''
_ENCODE = '''
@app.post("/encode")
def encode(body: Texts) -> dict[str, Any]:
    """Return the embedding of each text, of length 1."""
    return {"embeddings": plain(ask(app.state.model.encode, body.texts))}

'''
_REQUIREMENTS = """\
irtools-compiler$extra>=$version
fastapi>=0.115
uvicorn>=0.30
"""
_DOCKERFILE = """\
# docker build -f $here/Dockerfile -t $tag .    in the folder that holds $here and $release
FROM python:3.11-slim
RUN useradd --create-home app
WORKDIR /srv/$here
COPY $here/requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY $release /srv/$release
COPY $here/app.py .
USER app
EXPOSE 8000
CMD ["uvicorn", "app:app", "--host", "0.0.0.0", "--port", "8000"]
"""


def fastapi_files(builds: Sequence[Served], wanted: str | None, place: Path) -> dict[str, str]:
    """Return the files of the app by name.

    Args:
        builds: Of one model; the machine that serves chooses among them.
        wanted: What the caller has named them by; None: nothing.
        place: Folder that the files go to.

    Raises:
        UsageError: A path that the files cannot name.
    """
    first = builds[0]
    release = Path(os.path.relpath(first.release, place)).as_posix()
    texts = first.tokenizer and (first.scores is not None or first.embeds)
    words = {
        "model": first.model,
        "release": json.dumps(release),
        "build": "None" if wanted is None else json.dumps(wanted),
        "version": json.dumps(__version__),
        "typing": "Annotated, Any" if texts else "Any",
        "pydantic": "BaseModel, Field" if texts else "BaseModel",
        "endpoints": "".join(_endpoints(first)) if texts else "",
    }
    return {
        "app.py": Template(_APP).substitute(words),
        "requirements.txt": _requirements(builds),
        **_dockerfile(first, release, place),
    }


def _endpoints(served: Served) -> Iterator[str]:
    yield _TEXTS
    if served.scores is not None:
        yield _PREDICT
    if served.embeds:
        yield _ENCODE


def _requirements(builds: Sequence[Served]) -> str:
    extra = "[openvino]" if any("openvino" in one.target for one in builds) else ""
    return Template(_REQUIREMENTS).substitute(extra=extra, version=__version__)


def _dockerfile(served: Served, release: str, place: Path) -> dict[str, str]:
    """Return the Dockerfile; an image's context holds app and release, which must be neighbours."""
    if not release.startswith("../") or "/" in release[3:]:
        return {}
    for name in (place.name, release[3:]):
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise UsageError(f"{name!r} cannot be in a Dockerfile: rename the folder")
    words = {"here": place.name, "release": release[3:], "tag": served.model.lower()}
    return {"Dockerfile": Template(_DOCKERFILE).substitute(words)}
