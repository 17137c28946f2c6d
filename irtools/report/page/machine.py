"""Data, settings, machine and versions: what it takes to make the same figures again."""

from __future__ import annotations

from collections.abc import Iterator

from irtools.pages.blocks import Facts, Remarks, Section
from irtools.report.document import Report
from irtools.report.entries import DataEntry, ReportData
from irtools.report.plain import plain_data
from irtools.report.table import notes_of
from irtools.words import counted, size_text

__all__ = ["facts_of", "machine"]

_OF_THE_RUN = ("ended at", "took")


def machine(report: Report) -> Section:
    """Return the last section."""
    blocks = (
        Facts("Data", tuple(_data(report))),
        Facts("Machine", tuple(_machine(report))),
        Facts("Models", tuple(_models(report))),
        Facts("Settings", tuple(_settings(report))),
        Facts("Versions", tuple(report.versions.items())),
        *((Remarks("Notes", tuple(notes)),) if (notes := notes_of(report)) else ()),
    )
    return Section("machine", "Data and machine", blocks)


def facts_of(report: ReportData) -> Iterator[tuple[str, str]]:
    """Yield what went into a run: names and texts that two runs can be compared by."""
    yield "original", f"{report.model.source}, sha256 {report.model.sha256[:16]}"
    yield from _data(report)
    yield from (fact for fact in _machine(report) if fact[0] not in _OF_THE_RUN)
    yield from _settings(report)
    yield from report.versions.items()


def _data(report: ReportData) -> Iterator[tuple[str, str]]:
    yield "calibration", _data_text(report.calibration)
    yield "evaluation", _data_text(report.evaluation)


def _data_text(data: DataEntry | None) -> str:
    if data is None:
        return "none"
    drawn = ", drawn from the model's signature" if data.synthetic else ""
    labels = "with labels" if data.labelled else "without labels"
    samples = counted(data.samples, "sample")
    return f"{data.source}: {samples} {labels}{drawn}, sha256 {data.sha256[:16]}"


def _machine(report: ReportData) -> Iterator[tuple[str, str]]:
    found, target = report.machine, report.target
    yield "CPU", found.cpu
    yield "instruction set", found.isa
    yield "CPUs", f"{found.cores}, of which {found.quota} may be used"
    yield "system", found.system
    yield "target", f"{target.name}, {target.runtime}, isa {target.isa}, in {target.precision}"
    yield "threads", str(report.settings.threads or "the runtime's choice")
    yield "ended at", report.created
    yield "took", f"{report.seconds:.1f} s"


def _models(report: ReportData) -> Iterator[tuple[str, str]]:
    for name, entry in (("original", report.model), ("result", report.result)):
        opset = f", opset {entry.opset}" if entry.opset else ""
        nodes = counted(entry.nodes, "node")
        yield name, f"{entry.source}: {nodes}{opset}, sha256 {entry.sha256[:16]}"
    yield "task", report.model.task or ""
    if report.artifact is not None:
        for name, digest in report.artifact.files.items():
            yield "written", f"{name}, sha256 {digest[:16]}"
        yield "size", size_text(report.artifact.bytes)


def _settings(report: ReportData) -> Iterator[tuple[str, str]]:
    for name, value in plain_data(report.settings).items():
        match value:
            case None | False | [] | {} | "":
                continue
            case dict():
                text = ", ".join(f"{key}={item}" for key, item in value.items())
            case list():
                text = ", ".join(map(str, value))
            case _:
                text = str(value)
        yield name.replace("_", "-"), text
