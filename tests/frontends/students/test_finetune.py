"""Fine-tuning end to end on tiny networks: whole, by an adapter, and over a base in NF4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.errors import ModelError, OptionError, UsageError
from irtools.plugins import NullProgress
from irtools.students import (
    AdapterSettings,
    FinetuneRequest,
    FinetuneResult,
    TrainingSettings,
    find_trainer,
)

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

SHORT = TrainingSettings(epochs=1, batch=8, learning_rate=5e-3)


@pytest.fixture
def finetune(teacher: Path, data: tuple[str, str], tmp_path: Path) -> Callable[..., FinetuneResult]:
    """Return a function that fine-tunes with some fields of the request replaced."""

    def run(**changes: object) -> FinetuneResult:
        fields: dict[str, object] = {
            "base": str(teacher),
            "train": data[0],
            "evaluate": data[1],
            "work": tmp_path / "work",
            "training": SHORT,
        }
        request = FinetuneRequest(**(fields | changes))  # type: ignore[arg-type]
        result = find_trainer().finetune(request, NullProgress())
        assert result is not None
        return result

    return run


def network_of(folder: Path | None):
    from irtools.frontends.students.networks.checkpoints import load_network

    assert folder is not None
    return load_network(folder)


def test_every_weight_is_trained(finetune: Callable, teacher: Path) -> None:
    result = finetune()
    assert result.result.steps == 8
    assert result.result.trained_parameters == result.result.parameters
    assert "the head of" in result.notes[0]
    before, after = network_of(teacher).state_dict(), network_of(result.result.folder).state_dict()
    # A bias on the keys moves nothing: softmax does not see it.
    same = [n for n in before if torch.equal(before[n], after[n]) and "key.bias" not in n]
    assert not same


def test_a_base_without_a_head_gets_one(finetune: Callable, teacher: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    network_of(teacher).bert.save_pretrained(base)
    (base / "tokenizer.json").write_bytes((teacher / "tokenizer.json").read_bytes())
    result = finetune(base=str(base))
    assert result.notes[0] == "a new head for 3 outputs"
    config = network_of(result.result.folder).config
    # Numbered by name, for nothing else says which is which.
    assert config.label2id == {"crude": 0, "sport": 1, "trade": 2}
    assert config.architectures == ["BertForSequenceClassification"]


@pytest.mark.parametrize("kind", ["lora", "dora", pytest.param("rslora", marks=pytest.mark.slow)])
def test_an_adapter_is_merged(finetune: Callable, teacher: Path, kind: str) -> None:
    result = finetune(adapter=AdapterSettings(kind, rank=4))
    assert result.figures["merge-relative-error"] < 1e-5
    assert set(result.figures) == {"merge-relative-error"}
    assert result.result.trained_parameters < result.result.parameters
    (stage,) = result.stages
    assert stage.evaluation.value == result.result.evaluation.value
    merged, base = network_of(result.result.folder), network_of(teacher)
    change = merged.bert.encoder.layer[0].output.dense.weight - (
        base.bert.encoder.layer[0].output.dense.weight
    )
    assert change.abs().max() > 0
    if kind != "dora":
        assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 4
    assert torch.equal(
        merged.bert.embeddings.word_embeddings.weight, base.bert.embeddings.word_embeddings.weight
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["loha", "lokr", "oft", "ia3"])
def test_adapters_of_other_forms_are_merged(finetune: Callable, teacher: Path, kind: str) -> None:
    result = finetune(adapter=AdapterSettings(kind))
    assert result.figures["merge-relative-error"] < 1e-5
    assert result.result.trained_parameters < result.result.parameters
    merged, base = network_of(result.result.folder), network_of(teacher)
    change = merged.bert.encoder.layer[0].output.dense.weight - (
        base.bert.encoder.layer[0].output.dense.weight
    )
    assert change.abs().max() > 0


def test_biases_alone_are_trained_where_they_are(finetune: Callable, teacher: Path) -> None:
    result = finetune(adapter=AdapterSettings("bitfit"))
    before, after = network_of(teacher).state_dict(), network_of(result.result.folder).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    biases = {name for name in changed if name.endswith(".bias")}
    assert "bert.encoder.layer.0.output.dense.bias" in biases
    assert changed - biases <= {"classifier.weight"}
    assert not any("LayerNorm" in name for name in changed)
    assert result.result.trained_parameters == sum(before[name].numel() for name in changed) + sum(
        # A bias on the keys moves nothing: softmax does not see it.
        before[name].numel()
        for name in before
        if "key.bias" in name and name not in changed
    )
    assert result.adapter is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "ia3", "rank": 4}, "ia3 has no rank: leave it out"),
        ({"kind": "loha", "dropout": 0.1}, "loha has no adapter-dropout: leave it out"),
        ({"kind": "bitfit", "alpha": 2.0}, "bitfit has no alpha: leave it out"),
    ],
)
def test_options_that_a_kind_lacks_are_refused(given: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        AdapterSettings(**given)


def test_blocks_of_oft_divide_the_layers(finetune: Callable) -> None:
    with pytest.raises(OptionError, match="rank is 7: blocks of oft must divide the"):
        finetune(adapter=AdapterSettings("oft", rank=7))


def test_merging_by_hand_gives_the_same(finetune: Callable, teacher: Path) -> None:
    """W' = W + (alpha / rank) B A, from the file that peft wrote."""
    from safetensors.torch import load_file

    result = finetune(adapter=AdapterSettings("lora", rank=4, alpha=12))
    assert {path.name for path in result.adapter.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    adapter = load_file(result.adapter / "adapter_model.safetensors")
    name = "bert.encoder.layer.1.intermediate.dense"
    a, b = (adapter[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
    wanted = network_of(teacher).state_dict()[f"{name}.weight"] + 12 / 4 * b @ a
    found = network_of(result.result.folder).state_dict()[f"{name}.weight"]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_only_the_named_layers_get_an_adapter(finetune: Callable, teacher: Path) -> None:
    result = finetune(adapter=AdapterSettings(modules=("query", "value")))
    merged, base = network_of(result.result.folder), network_of(teacher)
    first, second = (n.bert.encoder.layer[0].attention.self for n in (merged, base))
    assert torch.equal(first.key.weight, second.key.weight)
    assert not torch.equal(first.query.weight, second.query.weight)
    with pytest.raises(UsageError, match=r"no linear layer of Bert.* is called q_proj"):
        finetune(adapter=AdapterSettings(modules=("q_proj",)))


def test_qlora_merges_onto_the_dequantized_base(finetune: Callable, teacher: Path) -> None:
    from irtools.frontends.students.networks.adapters import linear_names
    from irtools.frontends.students.networks.nf4 import quantize_nf4

    result = finetune(adapter=AdapterSettings("qlora", rank=4))
    assert any("simulated in float32" in note for note in result.notes)
    figures = result.figures
    assert 0.05 < figures["nf4-weight-error"] < 0.15
    assert figures["merge-relative-error"] < 1e-5
    # Merging leaves the grid of NF4, so storing it in NF4 introduces an error again.
    assert 0.01 < figures["requantized-weight-error"] < 0.15
    on_base, again = result.stages
    assert on_base.evaluation == result.result.evaluation
    assert again.name == "merged, in NF4 again"
    merged, base = network_of(result.result.folder), network_of(teacher)
    for name in linear_names(base, ()):
        rounded = quantize_nf4(base.get_submodule(name).weight).dequantize()
        change = merged.get_submodule(name).weight - rounded
        assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 4, name


def test_a_fresh_head_is_kept_with_the_adapter(
    finetune: Callable, teacher: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    network_of(teacher).bert.save_pretrained(base)
    (base / "tokenizer.json").write_bytes((teacher / "tokenizer.json").read_bytes())
    result = finetune(base=str(base), adapter=AdapterSettings())
    assert result.figures["merge-relative-error"] < 1e-5


def test_another_checkpoint_under_the_weights(
    finetune: Callable, make_bert: Callable, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    make_bert(tmp_path / "cut", layers=2)
    file = tmp_path / "cut" / "model.safetensors"
    weights = {n: t for n, t in load_file(file).items() if "layer.1.output" not in n}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="has no weights for"):
        finetune(base=str(tmp_path / "cut"))
