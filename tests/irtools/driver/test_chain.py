"""The links of a chain: what each is judged by, and what they are all timed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.driver import chain as module
from irtools.driver.chain import (
    Chain,
    ChainSource,
    ChainStage,
    judge_models,
    measure_chain,
    time_models,
)
from irtools.errors import IrtoolsError
from irtools.measure.base import BenchSettings, LatencyResult
from irtools.measure.timing import Contender
from irtools.model import Model
from irtools.plugins import NullProgress
from irtools.sources import load_source
from irtools.targets import find_target

TARGET = find_target("ort-cpu")
ROWS = {"large": 12, "small": 5}
QUIET = BenchSettings(batch=(2,), sequence=(7,))


def write(folder: Path, name: str, table: Sequence[Sequence[float]], body: str = "") -> ChainSource:
    """Scores [b, 2] of a sample are the rows of its ids, added up."""
    numbers = ", ".join(str(float(x)) for row in table for x in row)
    body = body or "s = Identity (added)"
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    g (int64[b, s] input_ids) => (float[b, 2] logits)
    <float[{len(table)}, 2] w = {{{numbers}}}, int64[1] one = {{1}}> {{
      e = Gather (w, input_ids) added = ReduceSum <keepdims = 0> (e, one) {body}
      logits = Identity (s)
    }}"""
    ir.save(ir.from_onnx_text(text), folder / f"{name}.onnx")
    return ChainSource(str(folder / f"{name}.onnx"))


def parity(rows: int, flipped: int = 0) -> list[list[float]]:
    """Odd ids are of class 1; the first `flipped` of them are taken for class 0."""
    odd = [i for i in range(rows) if i % 2][flipped:]
    return [[0.0, 1.0] if i in odd else [1.0, 0.0] for i in range(rows)]


@pytest.fixture
def data(tmp_path: Path) -> str:
    """One id a sample, 0 to 4 in turns, with its parity as label."""
    ids = np.arange(100)[:, None] % 5
    np.savez(tmp_path / "data.npz", input_ids=ids, labels=ids[:, 0] % 2)
    return str(tmp_path / "data.npz")


def chain_of(data: str, *sources: ChainSource, **more: object) -> Chain:
    stages = tuple(ChainStage(f"link {n}", TARGET, source) for n, source in enumerate(sources))
    given: dict[str, object] = {"bench": None, "threads": 1} | more
    return Chain(stages, data, data, "accuracy", **given)  # type: ignore[arg-type]


def models_of(chain: Chain) -> list[Model]:
    return [load_source(stage.source.source) for stage in chain.stages]


def test_decisions_are_compared_with_the_first_link_and_labels_with_each(
    tmp_path: Path, data: str
) -> None:
    wrong, right = (write(tmp_path, str(flipped), parity(5, flipped=flipped)) for flipped in (1, 0))
    links = measure_chain(chain_of(data, wrong, right, wrong))
    assert [link.score.evaluation.value for link in links] == pytest.approx([0.8, 1.0, 0.8])
    assert [link.score.agreement for link in links] == pytest.approx([1.0, 0.8, 1.0])
    gaps = [link.score.difference for link in links]
    assert gaps[0] is None and gaps[1] is not None and gaps[2] is not None
    assert gaps[1].low > 0 and (gaps[2].low, gaps[2].high) == (0, 0)
    assert [link.file_bytes for link in links] == [
        Path(source.source).stat().st_size for source in (wrong, right, wrong)
    ]
    assert all(link.latency == () for link in links)


def test_a_source_is_read_once(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def load(source: str) -> Model:
        read.append(source)
        return load_source(source)

    monkeypatch.setattr(module, "load_source", load)
    source, other = (write(tmp_path, name, parity(5)) for name in ("a", "b"))
    measure_chain(chain_of(data, source, other, source))
    assert read == [source.source, other.source]


class Timed:
    """What was to be timed, in place of the timing."""

    contenders: Mapping[str, Contender]
    feeds: Mapping[str, object]
    settings: BenchSettings

    def __call__(
        self,
        contenders: Mapping[str, Contender],
        feeds: Mapping,
        settings: BenchSettings,
        _: object,
    ) -> list[LatencyResult]:
        self.contenders, self.feeds, self.settings = contenders, feeds, settings
        return [
            LatencyResult(name, shape, 1.0 + index, 0, 0, 0, 0, 0, 3, (1.0 + index,) * 3)
            for shape in feeds
            for index, name in enumerate(contenders)
        ]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Timed:
    found = Timed()
    monkeypatch.setattr("irtools.measure.contest.contest.measure", found)
    return found


def test_links_are_timed_on_ids_that_all_of_them_have(
    tmp_path: Path, data: str, timed: Timed
) -> None:
    sources = [write(tmp_path, name, parity(ROWS[name])) for name in ("large", "small", "large")]
    chain = chain_of(data, *sources, bench=QUIET, threads=3)
    found = time_models(chain, models_of(chain), NullProgress())
    (feeds,) = timed.feeds.values()
    assert feeds["input_ids"].shape == (2, 7)
    assert 0 < feeds["input_ids"].max() < ROWS["small"]
    assert timed.settings.threads == 3
    # Two links of one source are two contenders, each with its own result.
    assert [result.block_medians_ms[0] for (result,) in found] == [1.0, 2.0, 3.0]


def test_threads_of_the_benchmark_come_first(tmp_path: Path, data: str, timed: Timed) -> None:
    chain = chain_of(
        data, write(tmp_path, "a", parity(5)), bench=BenchSettings(threads=2), threads=3
    )
    time_models(chain, models_of(chain), NullProgress())
    assert timed.settings.threads == 2


def test_where_one_link_branches_all_run_real_samples(
    tmp_path: Path, data: str, timed: Timed
) -> None:
    branch = (
        "m = ReduceMax <keepdims = 0> (input_ids) go = Cast <to = 9> (m) s = If (go) "
        "<then_branch = t () => (float[b, 2] p) { p = Identity (added) }, "
        "else_branch = f () => (float[b, 2] q) { q = Neg (added) }>"
    )
    plain, branching = write(tmp_path, "a", parity(5)), write(tmp_path, "b", parity(5), branch)
    chain = chain_of(data, plain, branching, bench=QUIET)
    time_models(chain, models_of(chain), NullProgress())
    ((label, turns),) = timed.feeds.items()
    assert label == "batch=2 32 samples in turns"
    ids = np.concatenate([feeds["input_ids"][:, 0] for feeds in turns])
    np.testing.assert_array_equal(ids, (np.arange(64) * 100 // 64) % 5)


def test_without_labels_there_is_nothing_to_judge_by(tmp_path: Path) -> None:
    np.savez(tmp_path / "bare.npz", input_ids=np.zeros((4, 1), np.int64))
    chain = chain_of(str(tmp_path / "bare.npz"), write(tmp_path, "a", parity(5)))
    with pytest.raises(IrtoolsError, match="label"):
        list(judge_models(chain, models_of(chain), NullProgress()))
