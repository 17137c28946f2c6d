"""What can be seen and enforced around every pass."""

from __future__ import annotations

from irtools.instruments.benchmark import Benchmark
from irtools.instruments.bisect import BisectLimit
from irtools.instruments.budget import Budget
from irtools.instruments.decisions import ClassChange, Decisions, Flip
from irtools.instruments.fidelity import FidelityAndMetric
from irtools.instruments.first_run import FirstRun
from irtools.instruments.greedy import Greedy
from irtools.instruments.guard import AccuracyGuard
from irtools.instruments.ir_dump import IrDump
from irtools.instruments.judge import Judge
from irtools.instruments.layers import Layer, Layers
from irtools.instruments.numerics import Numerics
from irtools.instruments.outlook import Outlook
from irtools.instruments.profile import TimeProfile
from irtools.instruments.promises import check_outputs
from irtools.instruments.reproducer import Recipe, Reproducer, may_be_bug
from irtools.instruments.rollback import Rollback
from irtools.instruments.score import ModelScore
from irtools.instruments.scores import FidelityFigure, MetricFigure
from irtools.instruments.sensitivity import LayerCost, Sensitivity
from irtools.instruments.sizes import Size, Sizes
from irtools.instruments.speed import Latency, first_ratios, is_slower
from irtools.instruments.verification import Verification

__all__ = [
    "AccuracyGuard",
    "Benchmark",
    "BisectLimit",
    "Budget",
    "ClassChange",
    "Decisions",
    "FidelityAndMetric",
    "FidelityFigure",
    "FirstRun",
    "Flip",
    "Greedy",
    "IrDump",
    "Judge",
    "MetricFigure",
    "Numerics",
    "Outlook",
    "Recipe",
    "Reproducer",
    "ModelScore",
    "Rollback",
    "Latency",
    "Layer",
    "LayerCost",
    "Layers",
    "Sensitivity",
    "Size",
    "Sizes",
    "TimeProfile",
    "Verification",
    "check_outputs",
    "first_ratios",
    "is_slower",
    "may_be_bug",
]
