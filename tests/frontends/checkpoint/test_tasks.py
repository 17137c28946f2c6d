"""What a checkpoint is for: found from its config, or chosen, or refused with what fits."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.errors import ModelError, OptionError, UnsupportedError
from irtools.frontends.checkpoint.tasks import TASKS, find_task
from irtools.frontends.checkpoint.weights import open_checkpoint, read_config

pytestmark = pytest.mark.torch

EXPECTED = {
    "bert": "text-classification",
    "bert-ner": "token-classification",
    "bert-qa": "question-answering",
    "bert-mlm": "fill-mask",
    "mpnet": "feature-extraction",
    "vit": "image-classification",
    "gpt2": "text-generation",
    "llama": "text-generation",
    "whisper": "automatic-speech-recognition",
    "t5": "text2text-generation",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_task_is_that_of_the_architecture(tiny: Callable[[str], Path], name: str) -> None:
    task, _ = find_task(read_config(tiny(name)), None, name)
    assert task is not None
    assert task.name == EXPECTED[name]


def test_tables_of_transformers_are_there() -> None:
    from transformers.models.auto import modeling_auto

    assert all(getattr(modeling_auto, task.table) for task in TASKS.values())


def test_a_checkpoint_without_architecture_is_for_features(tiny: Callable[[str], Path]) -> None:
    config = read_config(tiny("bert"))
    config.architectures = None
    task, network = find_task(config, None, "x")
    assert (task.name if task else None, network) == ("feature-extraction", "BertModel")


def test_an_architecture_outside_all_tasks_has_none(tiny: Callable[[str], Path]) -> None:
    config = read_config(tiny("bert"))
    config.architectures = ["BertForNextSentencePrediction"]
    assert find_task(config, None, "x") == (None, "BertForNextSentencePrediction")


def test_unknown_task_lists_the_known(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(OptionError, match=r"no task 'clasification'; tasks are text-class"):
        open_checkpoint(tiny("bert"), task="clasification")


def test_a_task_that_the_family_has_not_lists_those_that_fit(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(OptionError, match=r"not made for 'fill-mask'; .*image-classification"):
        open_checkpoint(tiny("vit"), task="fill-mask")


def test_a_task_without_weights_names_what_it_was_made_as(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(
        OptionError, match=r"no weights for .* made as BertForMaskedLM, .*: fill-mask, feature-ex"
    ):
        open_checkpoint(tiny("bert-mlm"), task="text-classification")


def test_a_folder_of_sentence_transformers_holds_an_encoder(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny("mpnet"), tmp_path / "sentences")
    config = json.loads((folder / "config.json").read_text())
    # As all-mpnet-base-v2 has it: its weights are those of the encoder alone.
    (folder / "config.json").write_text(
        json.dumps(config | {"architectures": ["MPNetForMaskedLM"]})
    )
    (folder / "modules.json").write_text("[]")
    found = open_checkpoint(folder)
    assert type(found.module).__name__ == "MPNetModel"
    assert found.task is not None and found.task.name == "feature-extraction"


def test_features_need_no_pooler(tiny: Callable[[str], Path]) -> None:
    module = open_checkpoint(tiny("bert-mlm"), task="feature-extraction").module
    assert type(module).__name__ == "BertModel"
    assert module.pooler is None


@pytest.fixture
def bert_copy(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text((tiny("bert") / "config.json").read_text())
    return tmp_path


def test_sharded_safetensors_are_read(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    import torch

    whole = open_checkpoint(tiny("bert")).module
    whole.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    found = open_checkpoint(tmp_path).module.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.state_dict().items())


def test_pickled_tensors_are_read(tiny: Callable[[str], Path], bert_copy: Path) -> None:
    import torch

    state = open_checkpoint(tiny("bert")).module.state_dict()
    torch.save(state, bert_copy / "pytorch_model.bin")
    found = open_checkpoint(bert_copy).module.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.write_text, (self.path, "run"))


def test_a_pickle_with_code_is_refused_and_not_run(bert_copy: Path) -> None:
    import torch

    torch.save({"bert": Evil(bert_copy / "ran")}, bert_copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="weights"):
        open_checkpoint(bert_copy)
    (bert_copy / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(bert_copy / "ran")))
    with pytest.raises(ModelError, match="weights"):
        open_checkpoint(bert_copy)
    assert not (bert_copy / "ran").exists()


REMOTE = """
import torch
from pathlib import Path
from transformers import BertConfig, PreTrainedModel

Path(__file__).with_name("ran").write_text("yes")


class OwnConfig(BertConfig):
    model_type = "own"


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.score = torch.nn.Embedding(config.vocab_size, 3)
        self.post_init()

    def forward(self, input_ids, attention_mask=None):
        return {"logits": (self.score(input_ids) * attention_mask[..., None]).sum(1)}
"""


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A checkpoint whose network is defined by a file next to it."""
    import json

    import torch
    from safetensors.torch import save_file

    (tmp_path / "modeling_own.py").write_text(REMOTE)
    config = {
        "model_type": "own",
        "architectures": ["OwnModel"],
        "vocab_size": 11,
        "auto_map": {
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForSequenceClassification": "modeling_own.OwnModel",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"score.weight": torch.ones(11, 3)}, tmp_path / "model.safetensors")
    return tmp_path


def test_code_in_a_checkpoint_runs_only_when_allowed(
    remote: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = tmp_path_factory.mktemp("modules")
    for name in ("transformers.dynamic_module_utils", "transformers.utils.hub"):
        monkeypatch.setattr(f"{name}.HF_MODULES_CACHE", str(modules), raising=False)
    with pytest.raises(UnsupportedError, match=r"code.*--trust-remote-code"):
        open_checkpoint(remote)
    assert not list(modules.rglob("ran"))
    checkpoint = open_checkpoint(remote, trust_remote_code=True)
    assert checkpoint.task is not None
    assert checkpoint.task.name == "text-classification"
    assert type(checkpoint.module).__name__ == "OwnModel"
