"""Causes: why one model is slower, larger or worse than another, each with its evidence.

facts = MeasuredFacts(Subject("a.onnx", a, 100), Subject("b.onnx", b, 30), find_target("ort-cpu"))
for finding in diagnose(facts).findings:
    print(finding.text, finding.evidence, finding.command)
"""

from __future__ import annotations

from irtools.causes.catalogue import GROUP, all_causes
from irtools.causes.collect.measured import MeasuredFacts
from irtools.causes.collect.settings import CollectSettings, ComparedOn
from irtools.causes.diagnosis import Diagnosis, diagnose
from irtools.causes.explorer import ExplorerFiles, explorer_files, module_table
from irtools.causes.facts import (
    ChosenClasses,
    ExitUse,
    Facts,
    GridUse,
    PaddingUse,
    RecordedFacts,
    Subject,
    Threads,
    Times,
)
from irtools.causes.finding import Cause, Finding, Gap
from irtools.causes.gaps import Respect
from irtools.causes.recorded import facts_from_plain, plain_facts

__all__ = [
    "Cause",
    "ChosenClasses",
    "CollectSettings",
    "ComparedOn",
    "Diagnosis",
    "ExitUse",
    "ExplorerFiles",
    "Facts",
    "Finding",
    "GROUP",
    "Gap",
    "GridUse",
    "MeasuredFacts",
    "PaddingUse",
    "RecordedFacts",
    "Respect",
    "Subject",
    "Threads",
    "Times",
    "all_causes",
    "diagnose",
    "explorer_files",
    "facts_from_plain",
    "module_table",
    "plain_facts",
]
