"""Students: smaller networks trained from larger ones; what is asked for and what comes back.

Who trains them is found through the entry points `irtools.students`; ours is in
`irtools.frontends.students`.
"""

from irtools.students.losses import LOSSES, parse_losses
from irtools.students.requests import DistillRequest, FinetuneRequest, LayerwiseRequest, Task
from irtools.students.results import (
    BlockFit,
    DistillResult,
    FinetuneResult,
    LayerwiseNetwork,
    LayerwiseResult,
    TrainedNetwork,
)
from irtools.students.settings import AdapterSettings, TrainingSettings, WeightRounding
from irtools.students.trainer import StudentTrainer, find_trainer

__all__ = [
    "LOSSES",
    "AdapterSettings",
    "BlockFit",
    "DistillRequest",
    "DistillResult",
    "FinetuneRequest",
    "FinetuneResult",
    "LayerwiseNetwork",
    "LayerwiseRequest",
    "LayerwiseResult",
    "StudentTrainer",
    "Task",
    "TrainedNetwork",
    "TrainingSettings",
    "WeightRounding",
    "find_trainer",
    "parse_losses",
]
