"""The benchmarks as one package: names, options, and the tables of docs/ made of the results."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package be found as it is from the root of the repository."""
    monkeypatch.syspath_prepend(ROOT)


def test_every_table_is_that_of_its_result() -> None:
    from benchmarks.pages import stale_pages

    assert stale_pages() == []


def test_a_changed_figure_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import pages
    from benchmarks.__main__ import main

    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(text.replace("| 18.02 | 1 |", "| 8.02 | 1 |"), encoding="utf-8")
    monkeypatch.setattr(pages, "PAGES", (page,))
    monkeypatch.setattr("benchmarks.__main__.PAGES", (page,))
    assert main(["tables", "--check"]) == 1
    assert main(["tables"]) == 0
    assert page.read_text(encoding="utf-8") == text
    assert main(["tables", "--check"]) == 0


def test_every_result_is_shown_and_every_table_has_one() -> None:
    from benchmarks.pages import PAGES, sources
    from benchmarks.recording import RESULTS

    texts = [path.read_text(encoding="utf-8") for path in PAGES]
    shown = {name for text in texts for name in sources(text)}
    shown |= {name for text in texts for name in re.findall(r"\(results/([\w-]+)\.json\)", text)}
    assert shown == {path.stem for path in RESULTS.glob("*.json")}
    assert list(headings_outside(texts[0])) == []


def headings_outside(text: str) -> Iterator[str]:
    """Yield the first lines of tables that no marker precedes."""
    lines = text.splitlines()
    for before, line, rule in zip(lines, lines[1:], lines[2:], strict=False):
        if line.startswith("| ") and rule.startswith("| ---") and not before.startswith("<!--"):
            yield line


def test_list_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import main
    from benchmarks.catalogue import BENCHMARKS

    assert main(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(BENCHMARKS)


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import main

    with pytest.raises(SystemExit) as stopped:
        main(["run", "minilm-r9"])
    assert stopped.value.code == 2
    assert "minilm-r9" in capsys.readouterr().err


@pytest.mark.torch
def test_every_benchmark_takes_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import main
    from benchmarks.catalogue import BENCHMARKS

    for name in BENCHMARKS:
        with pytest.raises(SystemExit) as stopped:
            main(["run", name, "--help"])
        assert stopped.value.code == 0
        assert f"usage: benchmarks run {name}" in capsys.readouterr().out


def test_tables_need_no_extra() -> None:
    """Reading results loads neither torch nor another tool."""
    import subprocess

    code = (
        "import sys\nfrom benchmarks.pages import stale_pages\nstale_pages()\n"
        "print(*{'torch', 'transformers', 'openvino', 'nncf'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == ""


def test_what_watching_costs_is_not_moved_by_a_busy_minute() -> None:
    from benchmarks.live_sampler import median_ratio

    watched = [1.01] * 81 + [3.0] * 15
    middle, low, high = median_ratio(watched, [1.0] * len(watched))
    assert low == middle == high == pytest.approx(1.01)


class _Words:
    """A text whose next token is always twice as likely as all others."""

    length = 0
    cache_bytes = None

    def read(self, ids: np.ndarray) -> np.ndarray:
        self.length += ids.shape[1]
        return np.tile(np.log([2.0, 1.0, 1.0], dtype=np.float32), (1, ids.shape[1], 1))


def test_a_context_is_read_in_parts_and_then_by_token() -> None:
    from benchmarks.contexts import _Reader

    text = _Words()
    reader = _Reader(text)
    assert len(reader.read(np.zeros(300, np.int64), 128)) == 3
    assert len(reader.read(np.zeros(4, np.int64), 1)) == 4
    assert (reader.position, reader.read_in_parts, text.length) == (304, 300, 304)
    assert reader.predicted == 303  # All but the first token have scores before them.
    assert reader.loss / reader.predicted == pytest.approx(np.log(2))


def test_short_contexts_get_further_texts() -> None:
    from benchmarks.contexts import further_texts

    tokens = np.arange(2048)
    found = [(length, text[0], len(text)) for length, text in further_texts(tokens, [256, 1024])]
    assert found == [(256, 256, 256), (256, 512, 256), (256, 768, 256)]


def test_rows_of_contexts_replace_those_before_them() -> None:
    from benchmarks.contexts import merged

    def row(entrant: str, length: int, step: float) -> dict[str, object]:
        return {"entrant": entrant, "length": length, "step_ms": step}

    before = [row("ORT, buffers", 128, 1.0), row("ORT, arrays", 4096, 2.0)]
    found = [row("ORT, buffers", 4096, 3.0), row("ORT, buffers", 128, 4.0)]
    assert merged(before, found) == [
        row("ORT, buffers", 128, 4.0),
        row("ORT, arrays", 4096, 2.0),
        row("ORT, buffers", 4096, 3.0),
    ]
