"""What the figures of a run mean, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from irtools.instruments.benchmark import first_ratios, is_slower
from irtools.measure.generate import GreedyText
from irtools.model import iter_nodes
from irtools.report.counts import tell_skipped
from irtools.report.document import DataEntry, Level, Row, Verdict
from irtools.targets import KernelReport, Target
from irtools.words import counted

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.data import Dataset
    from irtools.measure import LatencyResult
    from irtools.metrics import Fidelity

__all__ = ["judge_run", "remark_on_data", "remark_on_drawn", "remark_on_equal", "remark_on_form"]

_DYNAMIC_INT8 = frozenset({"ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger"})
_LOW_SQNR_DB = 20.0
_LOW_AGREEMENT = 0.99


def judge_run(
    rows: Sequence[Row],
    kernels: KernelReport | None,
    calibration: DataEntry | None,
    evaluation: DataEntry | None,
    phrases: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    remarks: Sequence[Verdict] = (),
    undrawn: str = "",
) -> tuple[Verdict, ...]:
    """Say what a reader must not overlook: slower, worse, float where int8 was meant, no data.

    Args:
        rows: The original and one row per pass.
        kernels: What the runtime chose for the result.
        calibration: Data that ranges came from.
        evaluation: Data that fidelity and metric were measured on.
        phrases: What each pass declares of its counts, by pass text.
        remarks: What the figures do not show (`remark_on_data`, `remark_on_form`).
        undrawn: Why no inputs were found on which the model runs; empty where none were needed.
    """
    return (
        *_on_data(calibration, evaluation),
        *remarks,
        *_on_undrawn(undrawn),
        *_on_passes(rows, phrases),
        *(() if undrawn else _on_never_compared(rows)),
        *_on_quality(rows),
        *_on_kernels(kernels),
        *_on_speed(rows),
    )


def remark_on_data(*used: Dataset | None) -> Iterator[Verdict]:
    """Say what was done to the data on the way: casts, arrays left out, lengths cut."""
    notes = [note for data in used if data is not None for note in data.notes]
    yield from (Verdict(Level.NOTE, note) for note in dict.fromkeys(notes))


def remark_on_drawn(note: str) -> Iterator[Verdict]:
    """Say at which sizes inputs were drawn; nothing where they are the usual ones."""
    if note:
        yield Verdict(Level.NOTE, note)


def _on_undrawn(reason: str) -> Iterator[Verdict]:
    if reason:
        yield Verdict(
            Level.WARNING,
            f"numbers were not compared, only structure was verified: {reason}",
        )


def remark_on_equal(rows: Sequence[Row], lossy: Sequence[bool], drawn: bool) -> Iterator[Verdict]:
    """Say where equal outputs prove little: weights were changed and drawn inputs do not show it.

    Args:
        rows: The original and one row per pass.
        lossy: Whether a pass may change numbers, one for each pass.
        drawn: The inputs were drawn.
    """
    fidelity = rows[-1].fidelity
    if not drawn or fidelity is None or fidelity.sqnr_db != float("inf"):
        return
    changing = [
        row.text.partition(":")[0]
        for row, may in zip(rows[1:], lossy, strict=False)
        if may and row.modified and row.drawn_back is None
    ]
    if changing:
        yield Verdict(
            Level.WARNING,
            f"every output is equal although {' and '.join(changing)} changed weights: the "
            "synthetic inputs do not seem to reach them, so this says nothing about the loss; "
            "give real samples with --evaluate",
        )


def remark_on_form(model: ir.Model, target: Target) -> Iterator[Verdict]:
    """Say where a model is quantized in a form that its target is not made for."""
    if target.capabilities.int8_dynamic:
        return
    dynamic = sum(node.op_type in _DYNAMIC_INT8 for node in iter_nodes(model))
    if not dynamic:
        return
    better = "static" if target.capabilities.int8_static_ops else "weight-only"
    yield Verdict(
        Level.WARNING,
        f"dynamic int8 does not suit {target.name}, which computes such products slower than float "
        f"ones ({counted(dynamic, 'node')}): quantize with int8:mode={better} instead"
        + (", and --calibrate" if better == "static" else ""),
    )


def _on_data(calibration: DataEntry | None, evaluation: DataEntry | None) -> Iterator[Verdict]:
    if calibration is not None and calibration.synthetic:
        yield Verdict(
            Level.WARNING,
            "calibrated on synthetic data drawn from the model's signature: ranges are a "
            "makeshift; give real samples with --calibrate",
        )
    if evaluation is not None and evaluation.synthetic:
        yield Verdict(
            Level.NOTE,
            "fidelity was measured on synthetic data: give real samples with --evaluate",
        )


def _on_passes(rows: Sequence[Row], phrases: Mapping[str, Mapping[str, str]]) -> Iterator[Verdict]:
    for row in rows[1:]:
        name = row.text.partition(":")[0]
        if row.drawn_back is not None:
            kept = f"{row.drawn_back}, to keep the budget"
            yield Verdict(Level.NOTE, f"{name}: {kept}")
        elif not row.modified and not row.skipped:
            # A pass that says itself why it found nothing knows more than its counts do.
            told = any(note.startswith("nothing ") for note in row.notes)
            why = "" if told else tell_skipped(row.statistics, phrases.get(row.text, {}))
            yield Verdict(Level.NOTE, f"{name} changed nothing" + (f": {why}" if why else ""))
    last: Sequence[LatencyResult] = ()
    for row in rows[1:]:
        slower = bool(row.latency) and is_slower(last, row.latency)
        last = row.latency or last
        if row.modified and slower:
            name = row.text.partition(":")[0]
            yield Verdict(Level.WARNING, f"{name} made the model slower than it was before it")


def _on_never_compared(rows: Sequence[Row]) -> Iterator[Verdict]:
    last = rows[-1]
    compared = last.fidelity is not None or last.metric is not None
    if not compared and any(row.modified for row in rows):
        yield Verdict(
            Level.WARNING,
            "the result was not compared with the original: give data with --evaluate, and leave "
            "out --no-check",
        )


def _on_quality(rows: Sequence[Row]) -> Iterator[Verdict]:
    last = rows[-1]
    figure = last.fidelity
    if figure is None:
        return
    if figure.nonfinite:
        yield Verdict(
            Level.WARNING,
            f"NaN or infinite on one side only: {counted(figure.nonfinite, 'output value')}",
        )
    agreement = figure.agreement
    if agreement is not None and agreement < _LOW_AGREEMENT and last.metric is None:
        yield Verdict(
            Level.WARNING,
            f"agreement with the original is {100 * agreement:.2f} %; check the task metric "
            "with --evaluate, or set a budget with --max-drop",
        )
        yield from _remedies(rows, lambda found: (found.agreement or 0) < _LOW_AGREEMENT)
    elif figure.sqnr_db < _LOW_SQNR_DB and last.metric is None:
        yield Verdict(
            Level.WARNING,
            f"the signal-to-noise ratio against the original is {figure.sqnr_db:.1f} dB, below "
            f"{_LOW_SQNR_DB:.0f} dB",
        )
        yield from _remedies(rows, lambda found: found.sqnr_db < _LOW_SQNR_DB)


def _remedies(rows: Sequence[Row], is_low: Callable[[Fidelity], bool]) -> Iterator[Verdict]:
    """Say what the pass would try that brought the figure down."""
    low = next((row for row in rows if row.fidelity is not None and is_low(row.fidelity)), None)
    if low is not None and low.remedies:
        name = low.text.partition(":")[0]
        yield Verdict(Level.NOTE, f"{name} may keep more with {'; or '.join(low.remedies)}")


def _on_kernels(kernels: KernelReport | None) -> Iterator[Verdict]:
    if kernels is None:
        return
    if kernels.float_fallbacks:
        shown = ", ".join(kernels.float_fallbacks[:3])
        more = f" and {len(kernels.float_fallbacks) - 3} more" * (len(kernels.float_fallbacks) > 3)
        yield Verdict(
            Level.WARNING,
            "in floating point although meant to be int8: "
            f"{counted(len(kernels.float_fallbacks), 'node')} ({shown}{more})",
        )
    on_cpu = kernels.providers.get("CPUExecutionProvider", 0)
    if len(kernels.providers) > 1 and on_cpu:
        total = sum(kernels.providers.values())
        yield Verdict(
            Level.WARNING,
            "on the CPU, because the device has no kernel for it: "
            f"{on_cpu} of {counted(total, 'node')}",
        )
    if kernels.int8 or kernels.fused_attention:
        yield Verdict(
            Level.NOTE,
            f"the runtime chose {counted(kernels.int8, 'int8 kernel')} and "
            f"{counted(kernels.fused_attention, 'fused attention kernel')}",
        )


def _on_speed(rows: Sequence[Row]) -> Iterator[Verdict]:
    last, first = rows[-1], rows[0]
    parts = []
    for phase, ratio in first_ratios(last.latency):
        where = "" if phase is None else f" in {phase}"
        if not ratio.is_significant:
            parts.append(f"as fast as the original{where}, within noise")
        elif ratio.value > 1:
            parts.append(f"{ratio.value:.2f}x faster{where} [{ratio.low:.2f}, {ratio.high:.2f}]")
        else:
            yield Verdict(
                Level.WARNING,
                f"the result is slower than the original{where}: {ratio.value:.2f}x "
                f"[{ratio.low:.2f}, {ratio.high:.2f}]",
            )
    if last.file_bytes and first.file_bytes and last.file_bytes != first.file_bytes:
        factor = first.file_bytes / last.file_bytes
        parts.append(f"{factor:.2f}x smaller" if factor > 1 else f"{1 / factor:.2f}x larger")
    if last.metric is not None and first.metric is not None:
        change = last.metric.value - first.metric.value
        parts.append(f"{last.metric.name} {last.metric.value:.4f} ({change:+.4f})")
    if last.greedy is not None:
        parts.append(_on_text(last.greedy))
    if parts:
        yield Verdict(Level.GOOD, "the result: " + ", ".join(parts))


def _on_text(found: GreedyText) -> str:
    if found.first_difference is None:
        return (
            f"the same greedy text ({counted(found.prompts, 'prompt')}, "
            f"{counted(found.new_tokens, 'new token')} each)"
        )
    return (
        f"the same greedy text for {found.equal} of {counted(found.prompts, 'prompt')}, the first "
        f"other token at {found.first_difference} of {found.new_tokens}"
    )
