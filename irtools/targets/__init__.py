"""Targets: what a runtime on a device runs, and how a model gets there."""

from __future__ import annotations

from irtools.targets.adapters import SwitchesAdapters, TakesAdapters
from irtools.targets.base import (
    Artifact,
    Capabilities,
    Companions,
    KernelReport,
    NodeTimes,
    Runner,
    RunnerOptions,
    Target,
)
from irtools.targets.isa import Isa
from irtools.targets.lookup import find_target, option_words, target_text
from irtools.targets.lowered import lower_file_version, lowered
from irtools.targets.packaged import PackagedTarget
from irtools.targets.session import SessionRunner
from irtools.targets.signature import Feeds, InputSlot
from irtools.targets.text import FedText, KeepsTexts, TextState, begin_text, text_decoder_of

__all__ = [
    "Artifact",
    "Capabilities",
    "Companions",
    "FedText",
    "Feeds",
    "Isa",
    "KeepsTexts",
    "KernelReport",
    "NodeTimes",
    "PackagedTarget",
    "Runner",
    "RunnerOptions",
    "SessionRunner",
    "SwitchesAdapters",
    "TakesAdapters",
    "InputSlot",
    "Target",
    "TextState",
    "begin_text",
    "find_target",
    "lower_file_version",
    "lowered",
    "option_words",
    "target_text",
    "text_decoder_of",
]
