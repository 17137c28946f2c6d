"""What the figures of a run mean, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from irtools.instruments import FidelityFigure, MetricFigure
from irtools.measure.figures import Level, Verdict
from irtools.model import iter_nodes
from irtools.report.counts import tell_skipped
from irtools.report.entries import DataEntry, Row
from irtools.report.kinds import figure_kinds
from irtools.targets import KernelReport, Target
from irtools.words import counted

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.data import Dataset

__all__ = ["judge_run", "remark_on_data", "remark_on_drawn", "remark_on_equal", "remark_on_form"]

_DYNAMIC_INT8 = frozenset({"ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger"})


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
        *(verdict for kind in figure_kinds() for verdict in kind.verdicts(rows)),
        *_on_kernels(kernels),
        *_on_result(rows),
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
        if may and row.modified and row.rollback is None
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
            "calibrated on synthetic data drawn from the model's signature: ranges are "
            "rough; give real samples with --calibrate",
        )
    if evaluation is not None and evaluation.synthetic:
        yield Verdict(
            Level.NOTE,
            "fidelity was measured on synthetic data: give real samples with --evaluate",
        )


def _on_passes(rows: Sequence[Row], phrases: Mapping[str, Mapping[str, str]]) -> Iterator[Verdict]:
    for row in rows[1:]:
        name = row.text.partition(":")[0]
        if row.rollback is None and not row.modified and not row.skipped:
            # A pass that says itself why it found nothing knows more than its counts do.
            told = any(note.startswith("nothing ") for note in row.notes)
            why = "" if told else tell_skipped(row.counters, phrases.get(row.text, {}))
            yield Verdict(Level.NOTE, f"{name} changed nothing" + (f": {why}" if why else ""))


def _on_never_compared(rows: Sequence[Row]) -> Iterator[Verdict]:
    last = rows[-1]
    compared = FidelityFigure.of(last) is not None or MetricFigure.of(last) is not None
    if not compared and any(row.modified for row in rows):
        yield Verdict(
            Level.WARNING,
            "the result was not compared with the original: give data with --evaluate, and leave "
            "out --no-check",
        )


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


def _on_result(rows: Sequence[Row]) -> Iterator[Verdict]:
    kinds = sorted(figure_kinds(), key=lambda kind: kind.headline)
    parts = [part for kind in kinds for part in kind.summary(rows)]
    if parts:
        yield Verdict(Level.GOOD, "the result: " + ", ".join(parts))
