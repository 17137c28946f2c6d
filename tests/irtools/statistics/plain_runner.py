"""A plain session as a runner, so that these tests need no backend of ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from irtools.targets import Feeds, KernelReport, RunnerOptions


class PlainRunner:
    """Runs a model on the CPU, one thread."""

    def __init__(self, model: ir.Model, options: RunnerOptions) -> None:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3
        self._session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), settings)
        self.output_names = [output.name for output in self._session.get_outputs()]
        self.input_names = [given.name for given in self._session.get_inputs()]
        self.runs = 0

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        names = list(self.output_names if outputs is None else outputs)
        self.runs += 1
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))

    def kernels(self) -> KernelReport:
        return KernelReport()

    def close(self) -> None:
        """Nothing to free."""

    def __enter__(self) -> PlainRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
