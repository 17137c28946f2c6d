"""The front end in a browser: one whole story, its looks, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import Server

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

_TWO = ("model.onnx", "same.onnx")
_FOUR = [f"{name}@{target}" for name in _TWO for target in ("ort-cpu", "openvino-cpu")]
_PATIENCE = 120_000
_SERIOUS = ("serious", "critical")


def _watched(page: Page) -> list[str]:
    """Collect what a page complains of."""
    found: list[str] = []
    page.on("console", lambda m: found.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def _enter(context: BrowserContext, server: Server) -> tuple[Page, list[str]]:
    page = context.new_page()
    complaints = _watched(page)
    page.goto(server.address)
    page.wait_for_selector("#runs")
    return page, complaints


def _start_job(page: Page, server: Server, output: str, passes: tuple[str, ...]) -> None:
    page.goto(f"{server.base}/jobs")
    page.fill("input[name=output]", output)
    page.select_option("select[name=effort]", "quick")
    for number, name in enumerate(passes):
        page.select_option("#add", name)
        page.click("#add-pass")
        page.wait_for_selector(f".pass:nth-of-type({number + 1})")
    page.click("#job #start")
    page.wait_for_selector("#log")


def _measure(page: Page, server: Server, chosen: list[str], seconds: str, mode: str) -> None:
    page.goto(f"{server.base}/live")
    for one in chosen:
        page.check(f'input[value="{one}"]')
    page.select_option("select[name=mode]", mode)
    page.fill("input[name=seconds]", seconds)
    page.click("#start")
    page.wait_for_selector(f".card:nth-of-type({len(chosen)})", timeout=_PATIENCE)


def test_one_whole_story(server: Server, window: Callable[..., Any], folder: Path) -> None:
    page, complaints = _enter(window(), server)
    _start_job(page, server, "story.onnx", ("cleanup", "fuse"))
    page.wait_for_selector("#result:not([hidden])", timeout=_PATIENCE)
    assert "irc: wrote" in page.inner_text("#log")
    page.click("#open")
    frame = page.frame_locator("iframe")
    frame.locator("#passes").wait_for()
    assert "cleanup" in frame.locator("#passes").inner_text()

    _measure(page, server, _FOUR, "6", "alternating")
    page.wait_for_selector("#save:not([hidden])", timeout=_PATIENCE)
    for number in range(4):
        card = page.inner_text(f".card:nth-of-type({number + 1})")
        assert _FOUR[number].split("@")[0] in card and "–" not in card
    assert page.locator("canvas").count() == 5
    page.click("#save button")
    page.wait_for_selector("text=saved live.bench.json")
    assert (folder / "live.bench.json").is_file()

    page.goto(f"{server.base}/try")
    page.fill("textarea[name=text]", "a good film")
    page.select_option("select[name=first]", "model.onnx@ort-cpu")
    page.select_option("select[name=second]", "story.onnx@openvino-cpu")
    page.click("#trial button")
    page.wait_for_selector("text=cosine 1.00000", timeout=_PATIENCE)
    for side in page.locator(".side").all():
        best = side.locator(".share").first.inner_text()
        assert "positive" in best and "%" in best

    os.mkfifo(folder / "pipe.npz")
    page.goto(f"{server.base}/jobs")
    page.fill("input[name=output]", "never.onnx")
    page.fill("input[name=calibrate]", "pipe.npz")
    page.click("#job #start")
    page.click("#cancel")
    page.wait_for_selector("#state.cancelled", timeout=_PATIENCE)
    (folder / "pipe.npz").unlink()

    page.goto(server.base)
    page.fill("#words", "story")
    page.wait_for_selector("#runs tr:only-child")
    page.check("#runs input")
    page.fill("#words", "report.json")
    page.wait_for_selector("#runs tr:nth-child(3)")
    for name in ("story", "first"):
        page.check(f'#runs input[value="{name}.report.json"]')
    page.click("text=Compare the chosen reports")
    compared = page.frame_locator("iframe").locator("#verdict")
    compared.wait_for()
    assert "size" in compared.inner_text()
    assert complaints == []


def _children(pid: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(path.parent.name)
            yield child
            yield from _children(child)


def test_a_killed_server_leaves_no_child(server: Server, window: Callable[..., Any]) -> None:
    page, _ = _enter(window(), server)
    _measure(page, server, _FOUR, "600", "alternating")
    children = list(_children(server.process.pid))
    assert len(children) >= 5, "the measurement, and a process for each of four models"
    watched = [os.pidfd_open(child) for child in children]
    server.process.send_signal(signal.SIGKILL)
    for one in watched:  # Readable when its process has ended.
        assert select.select([one], [], [], 30)[0]
        os.close(one)


def test_strangers_are_refused(server: Server, window: Callable[..., Any]) -> None:
    page = window().new_page()
    page.goto(f"{server.base}/#token=wrong")
    page.wait_for_selector("text=That is not the token")
    assert page.request.get(f"{server.base}/live").status == 401
    _enter(page.context, server)
    other = page.context.new_page()
    foreign = server.base.replace("127.0.0.1", "localhost") + "/foreign"
    form = f'<form action="{server.base}/live/stop" method="post"><button>Go</button></form>'
    other.route(foreign, lambda route: route.fulfill(body=form, content_type="text/html"))
    other.goto(foreign)
    other.click("button")
    other.wait_for_selector("text=a page of another origin asked")


def test_a_hundred_clients_at_once(server: Server, window: Callable[..., Any]) -> None:
    import httpx2

    token = server.address.partition("token=")[2]
    page, _ = _enter(window(), server)
    _measure(page, server, _FOUR[:2], "5", "alternating")

    async def read(client: httpx2.AsyncClient) -> int:
        async with client.stream("GET", "/live/events") as answer:
            return sum([line.startswith("data:") async for line in answer.aiter_lines()])

    async def all_of_them() -> list[int]:
        headers = {"authorization": f"Bearer {token}"}
        limits = httpx2.Limits(max_connections=200)
        async with httpx2.AsyncClient(
            base_url=server.base, headers=headers, limits=limits, timeout=60
        ) as client:
            pages = [client.get("/") for _ in range(100)]
            assert {answer.status_code for answer in await asyncio.gather(*pages)} == {200}
            return await asyncio.gather(*(read(client) for _ in range(100)))

    # Playwright has a loop in this thread.
    with ThreadPoolExecutor(1) as other:
        counts = other.submit(lambda: asyncio.run(all_of_them())).result()
    assert len(counts) == 100 and min(counts) > 5 and max(counts) == min(counts)


def _ended_job(page: Page, server: Server) -> str:
    """Start a job that fails at once, and return the path of its page."""
    answer = page.request.post(
        f"{server.base}/jobs",
        form={"kind": "build", "config": "irc.toml"},
        headers={"origin": server.base},
        max_redirects=0,
    )
    assert answer.status == 303, answer.text()
    return str(answer.headers["location"])


def test_a_measurement_is_found_again_and_stopped(
    server: Server, window: Callable[..., Any]
) -> None:
    page, complaints = _enter(window(), server)
    _measure(page, server, _FOUR[:2], "600", "alternating")
    page.goto(f"{server.base}/live")
    page.wait_for_selector(".card:nth-of-type(2)", timeout=_PATIENCE)
    page.click("#stop")
    page.wait_for_selector("#save:not([hidden])", timeout=_PATIENCE)
    page.wait_for_selector("#start:not([disabled])", timeout=_PATIENCE)
    assert ", ended" in page.inner_text("#state") and complaints == []


def test_two_token_streams_are_set_against_each_other(
    server: Server, window: Callable[..., Any]
) -> None:
    words = (["a", " good", " <b>film", " indeed"], ["a", " good", " movie"])
    page, complaints = _enter(window(), server)
    trials = iter((1, 2))
    page.route("**/try/start", lambda route: route.fulfill(json={"trial": next(trials)}))
    for number, written in enumerate(words, 1):
        sent = [
            {"token": hash(word) % 997, "text": "".join(written[: n + 1]), "ms": 10.0 * (n + 1)}
            for n, word in enumerate(written)
        ]
        sent.append({"tokens_per_second": 100.0, "first_ms": 9.5})
        lines = [f"event: message\ndata: {json.dumps(one)}\n\n" for one in sent]
        body = "".join([*lines, 'event: end\ndata: {"outcome": "done", "error": ""}\n\n'])
        _stream(page, f"**/try/{number}/events", body)
    page.goto(f"{server.base}/try")
    page.fill("textarea[name=text]", "it was")
    page.select_option("select[name=second]", "same.onnx@ort-cpu")
    page.click("#trial button")
    page.wait_for_selector("text=The first token that differs is number 3.")
    assert page.locator(".stream").all_inner_texts() == ["".join(written) for written in words]
    assert page.locator(".stream mark").all_inner_texts() == [" <b>film", " movie"]
    assert "first token after 9.5 ms, 100.0 tokens per second" in page.inner_text("#results")
    assert complaints == []


def _stream(page: Page, path: str, body: str) -> None:
    page.route(path, lambda route: route.fulfill(body=body, content_type="text/event-stream"))


def test_gpus_are_drawn_where_there_are_some(server: Server, window: Callable[..., Any]) -> None:
    gpu = {"name": "GPU A", "load": 37, "memory": 2_000_000_000, "power": 250.5}
    figures = {"p50": 1.0, "p95": 2.0, "p99": 3.0, "throughput": 9.0, "cpu": 1.0, "rss": 1e8}
    points = [
        {
            "t": t,
            "clients": 1,
            "active": "a",
            "cores": [50.0, 60.0],
            "gpus": [gpu, {**gpu, "name": "GPU B", "load": None}],
            "contenders": {"a": {**figures, "gpu_memory": 512_000_000}, "b": figures},
        }
        for t in (0.3, 0.6)
    ]
    sent = [f"event: message\ndata: {json.dumps(point)}\n\n" for point in points]
    sent.append('event: end\ndata: {"outcome": "done", "error": ""}\n\n')
    page, complaints = _enter(window(), server)
    page.route("**/live/start", lambda route: route.fulfill(json={"contenders": ["a", "b"]}))
    _stream(page, "**/live/events", "".join(sent))
    page.goto(f"{server.base}/live")
    page.click("#start")
    page.wait_for_selector("text=Power of each GPU, W")
    assert page.locator("canvas").count() == 8
    first, second = (page.inner_text(f".card:nth-of-type({n})") for n in (1, 2))
    assert "512 MB" in first and "GPU memory" in second and "512" not in second
    assert "0 GPU A" in page.inner_text("#charts")
    assert complaints == []


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_is_readable(
    server: Server, window: Callable[..., Any], width: int, dark: bool
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page, complaints = _enter(window(width, dark), server)
    _measure(page, server, _FOUR[:1], "2", "load")
    page.wait_for_selector("#save:not([hidden])", timeout=_PATIENCE)
    name = f"live-{width}-{dark}.bench.json"
    page.fill("#name", name)
    page.click("#save button")
    page.wait_for_selector(f"text=saved {name}")
    both = "path=first.report.json&path=second.report.json"
    job = _ended_job(page, server)
    for path in (
        *("", "/", "/try", "/jobs?passes=int8", "/jobs/99", job),
        *("/report?path=first.report.json", "/report/page?path=first.report.json"),
        *(f"/compare?{both}", f"/compare/page?{both}"),
        *(f"/report?path={name}", f"/report/page?path={name}"),
    ):
        if path:
            page.goto(f"{server.base}{path}")
        for details in page.locator("summary").all():
            details.click()
        wide = page.evaluate("document.documentElement.scrollWidth > innerWidth + 1")
        assert not wide, f"{path or '/live'} scrolls sideways at {width}"
        found = Axe().run(page).response["violations"]
        serious = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in _SERIOUS]
        assert serious == [], path
    # A page that is not there is itself an error in the console.
    assert [one for one in complaints if "404" not in one] == []
