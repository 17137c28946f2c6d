"""Who may ask, and what is out of reach for those who may."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.irtools.ui.conftest import ORIGIN, PORT, TOKEN

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

pytestmark = pytest.mark.ui

_PAGES = ("/live", "/try", "/jobs", "/report?path=small.report.json", "/live/events", "/jobs/list")


@pytest.mark.parametrize("path", _PAGES)
def test_without_a_token_there_is_nothing(stranger: TestClient, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": f"irc-ui-{PORT}=wrong"}):
        answer = stranger.get(path, headers=headers)
        assert answer.status_code == 401 and "small" not in answer.text


def test_the_first_page_asks_for_the_token(stranger: TestClient) -> None:
    answer = stranger.get("/")
    assert answer.status_code == 200 and "Token needed" in answer.text
    assert "small.report.json" not in answer.text


def test_the_token_becomes_a_cookie_that_scripts_cannot_read(stranger: TestClient) -> None:
    own = {"origin": ORIGIN}
    assert stranger.post("/login", json={"token": "wrong"}, headers=own).status_code == 401
    assert stranger.post("/login", content=b"\xff", headers=own).status_code == 401
    cookie = stranger.post("/login", json={"token": TOKEN}, headers=own).headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    assert "small.report.json" in stranger.get("/").text


def test_scripts_send_the_token_in_a_header(stranger: TestClient) -> None:
    assert stranger.get("/live", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", ""])
def test_names_that_dns_could_rebind_are_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 421
    local = f"localhost:{PORT}"
    answer = client.get("/", headers={"host": local, "origin": f"http://{local}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"http://127.0.0.1:{PORT + 1}"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_pages_of_other_origins_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/", headers=headers).status_code == 403
    assert client.post("/live/stop", headers=headers).status_code == 403


def test_a_change_without_an_origin_is_refused(client: TestClient) -> None:
    del client.headers["origin"]
    assert client.post("/live/stop").status_code == 403


@pytest.mark.parametrize(
    "path",
    ["../secret.json", "/etc/passwd", "link.json", "..%2fsecret.json", "a/../../secret.json"],
)
def test_paths_stay_in_the_folder(client: TestClient, path: str) -> None:
    for page in ("/report", "/report/page"):
        answer = client.get(page, params={"path": path})
        assert answer.status_code in (400, 404) and "contenders" not in answer.text
    for path_of_url in (f"/static/../../{path}", f"/static/%2e%2e/%2e%2e/{path}"):
        assert client.get(path_of_url).status_code in (400, 404)


def test_every_answer_is_hardened(client: TestClient) -> None:
    for path in ("/", "/static/live.js", "/nothing", "/report?path=../x"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
    framed = client.get("/report/page", params={"path": "small.report.json"}).headers
    assert framed["content-security-policy"].startswith("sandbox allow-scripts;")


def test_vendored_files_are_what_they_say() -> None:
    from irtools.ui.pages import STATIC

    folder = STATIC / "vendor"
    listed = json.loads((folder / "vendored.json").read_text(encoding="utf-8"))["vendored"]
    hashes = {name: sha for one in listed for name, sha in one["sha256"].items()}
    texts = {one["text"] for one in listed}
    assert {path.name for path in folder.iterdir()} == {*hashes, *texts, "vendored.json"}
    for name, expected in hashes.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected


def test_no_page_names_another_host(models: Path) -> None:
    from irtools.ui.pages import STATIC

    own = [*STATIC.glob("*.*"), *(STATIC.parent / "templates").iterdir()]
    for path in own:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, path.name
