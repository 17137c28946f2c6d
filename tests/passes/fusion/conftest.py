"""Running a fusion on a model written as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from irtools.model import Interface, Model, print_model, verify
from irtools.passmanager import PassContext, PassResult, Pipeline
from irtools.targets import RunnerOptions, find_target

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Fused:
    """What a pipeline made of a model, and the model before."""

    before: ir.Model
    after: ir.Model
    results: tuple[PassResult, ...]

    @property
    def text(self) -> str:
        """The nodes, one a line, without their names."""
        lines = print_model(self.after).splitlines()
        nodes = [line.strip() for line in lines if " = " in line and ": " not in line]
        return "\n".join(line.partition('  "')[0] for line in nodes)

    @property
    def notes(self) -> str:
        return "\n".join(note for result in self.results for note in result.notes)

    def count(self, op_type: str) -> int:
        return sum(node.op_type == op_type for node in self.after.graph.all_nodes())

    def error(self, feeds: Feeds, target_name: str = "ort-cpu") -> float:
        """Relative L2 error of the worst output on the exact runtime."""
        target = find_target(target_name)
        answers = []
        for model in (self.before, self.after):
            with target.runner(Model(model), RunnerOptions(threads=1, exact=True)) as runner:
                answers.append(runner.run(feeds))
        worst = 0.0
        for name, expected in answers[0].items():
            found = answers[1][name]
            assert found.shape == expected.shape
            assert np.array_equal(np.isnan(expected), np.isnan(found))
            norm = float(np.linalg.norm(np.nan_to_num(expected)))
            distance = float(np.linalg.norm(np.nan_to_num(expected - found)))
            worst = max(worst, distance / max(norm, 1e-30) if distance else 0.0)
        return worst


Fuse = Callable[..., Fused]


@pytest.fixture
def fuse(make_context: Callable[..., PassContext]) -> Fuse:
    """Run a pipeline over a model or its text; verifies, and that `modified` is honest."""

    def run(source: str | ir.Model, text: str = "fuse", target_name: str = "ort-cpu") -> Fused:
        before = ir.from_onnx_text(source) if isinstance(source, str) else source
        after = before.clone()
        interface = Interface.of(after)
        verify(after)
        results = []
        for step in Pipeline.parse(text):
            printed = print_model(after)
            result = step.run(after, make_context(target_name))
            assert result.modified == (print_model(after) != printed)
            verify(after, interface=interface)
            results.append(result)
        *_, last = Pipeline.parse(text)
        assert not last.run(after, make_context(target_name)).modified
        return Fused(before, after, tuple(results))

    return run
