"""Checkpoint folders become models that compute what torch computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irtools.data import load_dataset
from irtools.driver.make import model_entry
from irtools.driver.planning import planned
from irtools.errors import FileError, ModelError, UnsupportedError
from irtools.model import Model
from irtools.sources import LoadOptions, find_frontend, load_source
from irtools.targets import RunnerOptions, find_target

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def model(bert_folder: Path) -> Model:
    return load_source(str(bert_folder))


def test_interface_is_named_and_dynamic(model: Model) -> None:
    interface = model.interface
    assert [value.name for value in interface.inputs] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ]
    assert all(value.shape == ("batch", "sequence") for value in interface.inputs)
    assert [(value.name, value.shape) for value in interface.outputs] == [("logits", ("batch", 3))]


def test_labels_survive_as_metadata(model: Model) -> None:
    assert json.loads(model.ir.metadata_props["id2label"]) == {
        "0": "sport",
        "1": "trade",
        "2": "crude",
    }


def test_module_names_are_kept_as_provenance(model: Model) -> None:
    scopes = [n.metadata_props.get("pkg.torch.onnx.name_scopes", "") for n in model.ir.graph]
    assert any("bert.encoder.layer.1.attention" in scope for scope in scopes)


@pytest.mark.parametrize(("batch", "sequence"), [(1, 5), (4, 33), (2, 64)])
def test_numbers_equal_torch(model: Model, bert_folder: Path, batch: int, sequence: int) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    module = AutoModelForSequenceClassification.from_pretrained(bert_folder).eval()
    rng = np.random.default_rng(batch)
    mask = np.ones((batch, sequence), np.int64)
    mask[-1, sequence // 2 :] = 0
    feeds = {
        "input_ids": rng.integers(0, 97, (batch, sequence)),
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, 2, (batch, sequence)),
    }
    with torch.inference_mode():
        wanted = module(**{k: torch.from_numpy(v) for k, v in feeds.items()}).logits.numpy()
    with find_target("ort-cpu").runner(model, RunnerOptions(exact=True)) as runner:
        found = runner.run(feeds)["logits"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def with_states(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The export of an edited config in a chosen opset; made once, because it takes seconds."""
    folder = tmp_path_factory.mktemp("states")
    config = json.loads((bert_folder / "config.json").read_text())
    changes = {"return_dict": False, "output_hidden_states": True}
    (folder / "config.json").write_text(json.dumps(config | changes))
    shutil.copy(bert_folder / "model.safetensors", folder)
    return load_source(str(folder), LoadOptions(opset=18))


def test_a_config_that_asks_for_tuples_and_states_still_has_names(with_states: Model) -> None:
    names = [value.name for value in with_states.interface.outputs]
    assert names == ["logits", *(f"hidden_states.{n}" for n in range(3))]


@pytest.mark.slow
def test_a_short_position_table_is_kept_to(edited_config: Callable[..., Path]) -> None:
    from safetensors.numpy import load_file, save_file

    folder = edited_config(max_position_embeddings=12)
    weights = load_file(folder / "model.safetensors")
    name = "bert.embeddings.position_embeddings.weight"
    save_file(weights | {name: weights[name][:12].copy()}, folder / "model.safetensors")
    assert load_source(str(folder)).interface.inputs[0].shape == ("batch", "sequence")


def test_a_config_of_wrong_types_is_refused(edited_config: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="not a Transformers config"):
        load_source(str(edited_config(vocab_size="many")))


def test_an_unknown_activation_is_named(edited_config: Callable[..., Path]) -> None:
    with pytest.raises(
        ModelError, match=r"config.json: hidden_act is 'gelu_turbo', .* known are gelu, .*relu"
    ):
        load_source(str(edited_config(hidden_act="gelu_turbo")))


def test_opset_can_be_chosen(with_states: Model, model: Model) -> None:
    assert with_states.ir.opset_imports[""] == 18 != model.ir.opset_imports[""]


def test_companions_are_the_files_a_tokenizer_needs(bert_folder: Path) -> None:
    names = {p.name for p in find_frontend(str(bert_folder)).companions(str(bert_folder))}
    assert names == {"tokenizer.json", "config.json"}


def test_class_from_elsewhere_is_refused(edited_config: Callable[..., Path]) -> None:
    folder = edited_config(architectures=["MyOwnBert"])
    with pytest.raises(UnsupportedError, match=r"'MyOwnBert'.*never run"):
        load_source(str(folder))


def test_unknown_model_type_is_refused(edited_config: Callable[..., Path]) -> None:
    folder = edited_config(model_type="nosuchtype")
    with pytest.raises(ModelError, match="not a Transformers config"):
        load_source(str(folder))


def test_missing_weights_are_refused(edited_config: Callable[..., Path]) -> None:
    folder = edited_config()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"there are none; expected model.safetensors"):
        load_source(str(folder))


def test_a_choice_among_texts_is_refused(edited_config: Callable[..., Path]) -> None:
    folder = edited_config(
        architectures=["BertForMultipleChoice"], id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0}
    )
    cut_classifier(folder, 1)
    with pytest.raises(UnsupportedError, match=r"several texts .* --task feature-extraction"):
        load_source(str(folder))


def cut_classifier(folder: Path, classes: int) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    cut = {n: t[:classes].copy() if "classifier" in n else t for n, t in weights.items()}
    save_file(cut, folder / "model.safetensors", metadata={"format": "pt"})


def test_damaged_weights_are_refused(edited_config: Callable[..., Path]) -> None:
    folder = edited_config()
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        load_source(str(folder))


def test_weights_of_another_class_are_refused(edited_config: Callable[..., Path]) -> None:
    folder = edited_config(architectures=["BertForMaskedLM"])
    with pytest.raises(ModelError, match=r"no weights for .* of BertForMaskedLM"):
        load_source(str(folder))


def test_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        load_source(str(tmp_path / "nothing"))


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        load_source(str(tmp_path))


def test_texts_are_read_with_the_checkpoints_own_tokenizer(
    model: Model, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    checkpoint = tmp_path_factory.mktemp("home")
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "grain": 5, "up": 7}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(checkpoint / "tokenizer.json"))
    (tmp_path / "t.jsonl").write_text('{"text": "grain up"}\n')
    data = load_dataset(str(tmp_path / "t.jsonl"), Model(model.ir, checkpoint))
    np.testing.assert_array_equal(data.feeds["input_ids"], [[5, 7]])


def test_task_and_classes_reach_the_report(model: Model) -> None:
    entry = model_entry(model)
    assert entry.task == "text-classification"
    assert entry.classes == {"0": "sport", "1": "trade", "2": "crude"}


def test_inner_tensors_and_weights_have_the_names_of_their_modules(model: Model) -> None:
    graph = model.ir.graph
    query = "bert.encoder.layer.1.attention.self.query"
    (product,) = (n for n in graph if n.name == f"{query}/MatMul")
    assert product.outputs[0].name == f"{query}/MatMul"
    assert product.inputs[1].name == f"{query}.weight"
    assert not any("stack_trace" in node.metadata_props for node in graph)
    assert not any(str(Path.home()) in str(node.metadata_props) for node in graph)


@pytest.mark.parametrize(
    ("passes", "subject"),
    [
        ("int8:mode=dynamic:min-size=0", "bert.encoder.layer.1.output.dense"),
        ("prune:ratio=0.5:round-to=1", "bert.encoder.layer.1.intermediate.dense"),
    ],
)
def test_plans_and_patterns_speak_of_modules(model: Model, passes: str, subject: str) -> None:
    def subjects_of(pipeline: str) -> list[str]:
        with planned(model, pipeline) as found:
            return [decision.subject for decision in found.plan.decisions]

    assert any(subject in text for text in subjects_of(passes))
    left = subjects_of(f"{passes}:exclude=layer.1")
    assert left
    assert not any("layer.1." in text for text in left)
