"""What the pages show, and what the forms start."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from irtools.errors import PipelineSyntaxError, UsageError
from tests.irtools.ui.conftest import HOSTILE, events

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from irtools.ui.state import UiState

pytestmark = pytest.mark.ui

_SAMPLE = {"x": [[0, 0, 0, 0, 0, 0, 0, -9]]}


def test_runs_are_listed_filtered_and_opened(client: TestClient) -> None:
    everything = client.get("/").text
    assert "small.report.json" in everything and "x smaller" in everything
    assert "has version 1, expected" in everything
    part = client.get("/", params={"words": "cleanup ort"}, headers={"hx-request": "true"}).text
    assert part.lstrip().startswith("<tr>") and "small.report.json" in part
    assert "broken.report.json" not in part
    assert "No run matches" in client.get("/", params={"words": "nothing-has-this"}).text
    page = client.get("/report", params={"path": "small.report.json"}).text
    assert 'src="/report/page?path=small.report.json"' in page and "passes=cleanup" in page
    alone = client.get("/report/page", params={"path": "small.report.json"}).text
    assert "cleanup" in alone and alone.startswith("<!doctype html>")


def test_two_runs_are_compared(client: TestClient) -> None:
    both = {"path": ["small.report.json", "small.report.json"]}
    assert client.get("/compare", params=both).status_code == 200
    assert "small.report.json" in client.get("/compare/page", params=both).text
    answer = client.get("/compare", params={"path": "small.report.json"})
    assert answer.status_code == 400 and "expected 2" in answer.json()["error"]


def test_names_from_files_stay_text(client: TestClient) -> None:
    for path in ("/live", "/try", "/jobs"):
        text = client.get(path).text
        assert "<img" not in text and "&lt;img" in text


def test_a_mistake_is_a_line_for_scripts_and_a_page_for_people(client: TestClient) -> None:
    answer = client.get("/report?path=none.json")
    assert answer.status_code == 404 and "none.json" in answer.json()["error"]
    page = client.get("/report?path=none.json", headers={"accept": "text/html"})
    assert page.status_code == 404 and 'role="alert"' in page.text
    assert client.get("/jobs/99").status_code == 404
    assert client.post("/live/start", content=b"[]").json() == {
        "error": "the request is not a JSON object"
    }


def test_every_pass_has_a_form() -> None:
    from irtools.ui.forms import pass_form, pass_names

    forms = {name: pass_form(name) for name, _ in pass_names()}
    kinds = {field.name: field.kind for field in forms["int8"].fields}
    assert kinds["mode"] == "choice" and kinds["min-size"] == "number"
    assert kinds["exclude"] == "text"


def test_a_form_becomes_a_pipeline() -> None:
    from irtools.ui.forms import pipeline_of

    pairs = [("pass", "cleanup"), ("pass", "int8"), ("option.mode", "dynamic")]
    assert pipeline_of([*pairs, ("option.exclude", " a b ")]) == (
        "cleanup,int8:mode=dynamic:exclude=a%20b"
    )
    assert pipeline_of([("source", "x")]) == ""
    with pytest.raises(PipelineSyntaxError):
        pipeline_of([("pass", "int8"), ("option.mode", "often")])
    with pytest.raises(PipelineSyntaxError, match="int8"):
        pipeline_of([("pass", "int9")])
    with pytest.raises(UsageError, match="before any pass"):
        pipeline_of([("option.mode", "dynamic")])


def test_the_fields_of_a_pass_are_added(client: TestClient) -> None:
    text = client.get("/jobs/pass", params={"name": "prune"}).text
    assert 'name="pass" value="prune"' in text and 'name="option.' in text
    assert 'value="cleanup"' in client.get("/jobs?passes=cleanup,int8").text


@pytest.mark.slow
def test_a_job_lives_from_form_to_report(client: TestClient, state: UiState) -> None:
    form = {"kind": "optimize", "source": "model.onnx", "output": "made/new.onnx"}
    answer = client.post("/jobs", data={**form, "pass": "cleanup", "effort": "quick"})
    assert answer.status_code == 303
    number = int(answer.headers["location"].rsplit("/", 1)[1])
    kinds, documents = zip(*events(client.get(f"/jobs/{number}/events")), strict=True)
    lines = [line for text in documents[:-1] for line in json.loads(text)["lines"]]
    assert kinds[-1] == "end" and any("wrote" in line for line in lines), lines
    assert json.loads(documents[-1])["state"] == "done"
    assert "made/new.report.json" in client.get("/").text
    assert "done" in client.get("/jobs/list").text


def test_a_job_is_followed_line_by_line(client: TestClient, state: UiState) -> None:
    from irtools.background import JobRequest

    job = state.jobs.start(JobRequest("shows", ("report", "small.report.json")))
    kinds, documents = zip(*events(client.get(f"/jobs/{job.number}/events")), strict=True)
    lines = [line for text in documents[:-1] for line in json.loads(text)["lines"]]
    assert kinds[-1] == "end" and any("cleanup" in line for line in lines), lines
    assert json.loads(documents[-1])["state"] == "done" and "shows" in client.get("/jobs/list").text


class _Measured:
    """A measurement that has ended."""

    ended, outcome, error = True, "done", ""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = list(messages)

    def since(self, number: int) -> tuple[list[Any], int]:
        return self._messages[number:], len(self._messages)

    def close(self) -> None:
        pass


def test_what_was_measured_is_saved_and_shown(
    client: TestClient, state: UiState, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"name": f"{HOSTILE}.onnx", "target": "ort-cpu", "file_bytes": 100}
    machine = {"cpu": "CPU", "isa": "vnni", "cores": 2, "quota": 2, "system": "Linux"}
    bench = {"format": "irtools-bench", "machine": machine, "contenders": [one], "results": []}
    monkeypatch.setattr(state, "live", None)
    assert client.post("/live/save", json={"name": "early"}).status_code == 400
    monkeypatch.setattr(state, "live", _Measured({"t": 0.3}, {"bench": bench}))
    found = [json.loads(data) for _, data in events(client.get("/live/events"))]
    assert found == [{"t": 0.3}, {"bench": bench}, {"outcome": "done", "error": ""}]
    assert client.post("/live/save", json={"name": "b/kept"}).json() == {"path": "b/kept.json"}
    assert "exists" in client.post("/live/save", json={"name": "b/kept"}).json()["error"]
    frame = client.get("/report", params={"path": "b/kept.json"}).text
    assert 'src="/report/page?path=b/kept.json"' in frame
    page = client.get("/report/page", params={"path": "b/kept.json"})
    assert "&lt;img" in page.text and "<img" not in page.text
    assert page.headers["content-security-policy"].startswith("sandbox")
    (models / "b/kept.json").write_text(json.dumps({**bench, "results": [1]}), encoding="utf-8")
    wrong = client.get("/report", params={"path": "b/kept.json"})
    assert wrong.status_code == 400 and "does not follow its format" in wrong.json()["error"]
    for text, said in (
        ('{"format": "irtools-bench", cut', "kept.json is not JSON"),
        (json.dumps({**bench, "contenders": 5}), "does not follow its format"),
    ):
        (models / "b/kept.json").write_text(text, encoding="utf-8")
        wrong = client.get("/report", params={"path": "b/kept.json"})
        assert wrong.status_code == 400 and said in wrong.json()["error"]
        assert said in client.get("/").text, "the list names the file"
    (models / "b/kept.json").unlink()


def test_a_job_is_cancelled(client: TestClient, state: UiState, models: Path) -> None:
    from irtools.background import JobRequest

    os.mkfifo(models / "pipe")
    job = state.jobs.start(JobRequest("waits", ("report", "pipe")))
    assert client.post(f"/jobs/{job.number}/cancel").status_code == 303
    assert job.wait(30) and job.state == "cancelled"
    (models / "pipe").unlink()


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"source": "../secret.json", "output": "a.onnx"}, "outside"),
        ({"source": "model.onnx", "output": "../a.onnx"}, "outside"),
        ({"source": "model.onnx", "output": ""}, "does not name a file"),
        ({"source": "model.onnx", "output": "a.onnx", "kind": "rm"}, "expected optimize"),
        ({"kind": "build", "config": "../irc.toml"}, "outside"),
        ({"source": "model.onnx", "output": "a.onnx", "pass": "int9"}, "int9"),
    ],
)
def test_forms_are_checked(client: TestClient, form: dict[str, str], problem: str) -> None:
    answer = client.post("/jobs", data=form)
    assert answer.status_code in (400, 404) and problem in answer.json()["error"]


def test_a_sample_runs_in_a_child(client: TestClient) -> None:
    number = client.post(
        "/try/start",
        json={"model": "model.onnx@ort-cpu", "kind": "arrays", "arrays": json.dumps(_SAMPLE)},
    ).json()["trial"]
    found = events(client.get(f"/try/{number}/events"))
    assert json.loads(found[-1][1]) == {"outcome": "done", "error": ""}
    result = json.loads(found[0][1])
    assert result["ms"] > 0 and result["outputs"][0]["classes"][0]["name"] == "cat"
    assert result["outputs"][0]["values"][-1] == 9


@pytest.mark.parametrize(
    ("sample", "problem"),
    [
        ({"kind": "arrays", "arrays": "no json"}, "arrays are JSON"),
        ({"kind": "text", "text": "hello"}, "tokenizer"),
    ],
)
def test_a_sample_that_does_not_fit_is_explained(
    client: TestClient, sample: dict[str, str], problem: str
) -> None:
    started = client.post("/try/start", json={"model": "model.onnx@ort-cpu", **sample}).json()
    found = events(client.get(f"/try/{started['trial']}/events"))
    assert problem in json.loads(found[-1][1])["error"]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"use": []}, "expected 1 to 8"),
        ({"use": ["model.onnx"]}, "names no target"),
        ({"use": ["../secret.json@ort-cpu"]}, "outside"),
        ({"use": ["model.onnx@ort-cpu"], "mode": "often"}, "expected alternating or load"),
        ({"use": ["model.onnx@ort-cpu"], "clients": "x"}, "not a number"),
        ({"use": "model.onnx@ort-cpu"}, "not a list"),
    ],
)
def test_settings_of_a_measurement_are_checked(
    client: TestClient, document: dict[str, object], problem: str
) -> None:
    answer = client.post("/live/start", json=document)
    assert answer.status_code == 400 and problem in answer.json()["error"]


@pytest.mark.slow
def test_models_are_measured_live_and_saved(client: TestClient, models: Path) -> None:
    assert client.post("/live/save", json={"name": "early"}).status_code == 400
    use = ["model.onnx@ort-cpu", f"{HOSTILE}.onnx@ort-cpu"]
    started = client.post("/live/start", json={"use": use, "seconds": 0.5, "threads": 1})
    assert started.json() == {"contenders": use}
    again = client.post("/live/start", json={"use": use})
    assert again.status_code == 400 and "is running" in again.json()["error"]
    found = [json.loads(data) for kind, data in events(client.get("/live/events"))]
    points = [one for one in found if "contenders" in one]
    assert found[-1] == {"outcome": "done", "error": ""}
    assert points and set(points[-1]["contenders"]) == set(use)
    assert all(one["rss"] > 0 for one in points[-1]["contenders"].values())
    assert client.post("/live/save", json={"name": "a/live"}).json() == {"path": "a/live.json"}
    assert "exists" in client.post("/live/save", json={"name": "a/live"}).json()["error"]
    document = json.loads((models / "a/live.json").read_text(encoding="utf-8"))
    assert document["format"] == "irtools-bench"
    assert [one["name"] for one in document["contenders"]] == use
    assert "&lt;img" in client.get("/report/page", params={"path": "a/live.json"}).text
    assert np.isfinite([one["median_ms"] for one in document["results"]]).all()
