"""Scores of the last token alone: what the next token of a text is chosen by."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor
from irtools.errors import UsageError
from irtools.model import Model

__all__ = ["with_last_logits"]

_LOGITS = "logits"


def with_last_logits(model: Model) -> Model:
    """Return a copy of a decoder whose `logits` are [batch, 1, vocabulary], of the last position.

    A prompt is read for the token that follows it; the scores of the tokens before are as many
    times larger as the prompt is long. Texts of several lengths must be padded on the left. What
    needs the scores of all tokens, as perplexity does, needs the decoder as it was.

    Raises:
        UsageError: The model has no logits [batch, sequence, vocabulary].
    """
    made = model.clone()
    graph = made.ir.graph
    output = next((value for value in graph.outputs if value.name == _LOGITS), None)
    shape = None if output is None else output.shape
    if output is None or shape is None or len(shape) != 3 or output.producer() is None:
        found = ", ".join(f"{value.name} {value.shape}" for value in graph.outputs)
        raise UsageError(
            f"--logits last: expected an output {_LOGITS} [batch, sequence, vocabulary], as "
            f"decoders have; found {found}"
        )
    if shape[1] == 1:
        return model
    editor = Editor(made.ir, "last-logits")
    last = editor.constant("last_position", np.asarray([-1], np.int64))
    row = editor.append(
        graph,
        "Gather",
        [output, last],
        {"axis": 1},
        outputs={"last_logits": output.dtype},
        shape=ir.Shape([shape[0], 1, shape[2]]),
    )
    editor.replace_output(output, row, "all_logits")
    return made
