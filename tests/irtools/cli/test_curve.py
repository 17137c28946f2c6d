"""Tokens per second over the length of a text."""

from __future__ import annotations

from irtools.cli.curve import decode_curve
from irtools.measure.base import LatencyResult


def _timed(name: str, shape: str, phase: str | None, rate: float) -> LatencyResult:
    return LatencyResult(
        name=name,
        shape=shape,
        median_ms=1.0,
        p90_ms=1.0,
        p99_ms=1.0,
        throughput=rate,
        peak_bytes=1,
        load_seconds=1.0,
        runs=3,
        block_medians_ms=(1.0,),
        speedup=None,
        mean_ms=1.0,
        samples=1,
        phase="decode" if phase == "decode" else "prefill",
        tokens_per_second=rate,
        first_seconds=1.0,
    )


def test_all_bars_have_one_scale() -> None:
    lines = list(
        decode_curve(
            [
                _timed("a", "prefill batch=1 sequence=64", "prefill", 900.0),
                _timed("a", "decode batch=1 past=1024", "decode", 20.0),
                _timed("a", "decode batch=1 past=64", "decode", 40.0),
                _timed("b", "decode batch=1 past=64", "decode", 10.0),
                _timed("b", "decode batch=1 past=1024", "decode", 0.1),
            ]
        )
    )
    assert lines == [
        "tokens/s by tokens in the cache",
        "a",
        f"     64  {40 * chr(0x2588)} 40.0",
        f"  1,024  {20 * chr(0x2588)} 20.0",
        "b",
        f"     64  {10 * chr(0x2588)} 10.0",
        f"  1,024  {chr(0x2588)} 0.1",
    ]


def test_one_length_is_no_curve() -> None:
    assert not list(decode_curve([_timed("a", "decode batch=1 past=64", "decode", 4.0)]))
