"""What can be seen and enforced around every pass."""

from __future__ import annotations

from irtools.passmanager.instruments.benchmark import Benchmark
from irtools.passmanager.instruments.bisect import BisectLimit
from irtools.passmanager.instruments.fidelity import FidelityAndMetric
from irtools.passmanager.instruments.greedy import Greedy
from irtools.passmanager.instruments.guard import AccuracyGuard
from irtools.passmanager.instruments.ir_dump import IrDump
from irtools.passmanager.instruments.judge import Judge, Score
from irtools.passmanager.instruments.numerics import Numerics
from irtools.passmanager.instruments.reproducer import Recipe, Reproducer
from irtools.passmanager.instruments.sizes import Sizes
from irtools.passmanager.instruments.verification import Verification

__all__ = [
    "AccuracyGuard",
    "Benchmark",
    "BisectLimit",
    "FidelityAndMetric",
    "Greedy",
    "IrDump",
    "Judge",
    "Numerics",
    "Recipe",
    "Reproducer",
    "Score",
    "Sizes",
    "Verification",
]
