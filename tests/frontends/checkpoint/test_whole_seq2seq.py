"""Encoder-decoders that only read: one model, and what it computes is what the network computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irtools.errors import UnsupportedError
from irtools.frontends.checkpoint.weights import open_checkpoint
from irtools.frontends.checkpoint.whole_seq2seq import describe_whole
from irtools.frontends.torch.check import relative_l2
from irtools.sources import LoadOptions, find_frontend, load_source

pytestmark = pytest.mark.torch

WHOLE = {
    "bart-classifier": ("logits",),
    "mbart-classifier": ("logits",),
    "t5-classifier": ("logits",),
    "bart-qa": ("start_logits", "end_logits"),
}


@pytest.mark.parametrize("name", [*WHOLE, "t5-encoder"])
def test_what_only_reads_is_one_model(tiny: Callable[[str], Path], name: str) -> None:
    folder = str(tiny(name))
    assert find_frontend(folder).parts(folder, LoadOptions()) == ()


def test_the_task_says_whether_it_writes(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = str(tiny("bart-classifier"))
    frontend = find_frontend(folder)
    wanted = LoadOptions(task="text2text-generation")
    assert frontend.parts(folder, wanted) == ("encoder", "decoder")


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_exported_equals_the_network(tiny: Callable[[str], Path], name: str) -> None:
    import torch

    checkpoint = open_checkpoint(tiny(name))
    assert checkpoint.task is not None
    source = describe_whole(checkpoint.module, checkpoint.task.name, "x", {})
    for trial in source.trials():
        assert (trial.feeds["attention_mask"] == 0).any() or len(trial.feeds["input_ids"]) == 1
        found = source.run({n: torch.from_numpy(a) for n, a in trial.feeds.items()})
        assert tuple(found) == tuple(trial.wanted) == WHOLE[name]
        for output, wanted in trial.wanted.items():
            assert relative_l2(wanted, found[output].numpy()) < 1e-6


def test_the_last_end_of_the_text_counts(tiny: Callable[[str], Path]) -> None:
    import torch

    source = describe_whole(
        open_checkpoint(tiny("bart-classifier")).module, "text-classification", "x", {}
    )
    ids = torch.tensor([[0, 9, 2, 2, 7, 2, 1, 1]])
    mask = (ids != 1).long()

    def logits(ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        return source.run({"input_ids": ids, "attention_mask": mask})["logits"].numpy()

    whole = logits(ids, mask)
    np.testing.assert_allclose(logits(ids[:, :6], mask[:, :6]), whole, rtol=1e-4, atol=1e-5)
    # A text without an end: its last token stands for it.
    ids[0, 2:6] = 8
    cut = logits(ids[:, :6], mask[:, :6])
    np.testing.assert_allclose(logits(ids, mask), cut, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WHOLE, "t5-encoder"])
def test_whole_networks_equal_torch(tiny: Callable[[str], Path], name: str) -> None:
    model = load_source(str(tiny(name)))
    axes = ("batch", "sequence")
    assert [(v.name, v.shape) for v in model.interface.inputs] == [
        ("input_ids", axes),
        ("attention_mask", axes),
    ]
    outputs = tuple(v.name for v in model.interface.outputs)
    assert outputs == WHOLE.get(name, ("last_hidden_state",))
    if name.endswith("classifier"):
        assert model.interface.outputs[0].shape == ("batch", 3)
        assert json.loads(model.ir.metadata_props["id2label"])["2"] == "LABEL_2"


def test_a_pair_without_a_head_says_which_task(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("t5"), tmp_path / "t5")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["T5Model"]}))
    with pytest.raises(UnsupportedError, match=r"without a head; with --task text2text-gen"):
        load_source(str(folder))
