"""Students before training: which weights of the teacher they hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from irtools.errors import UnsupportedError, UsageError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def network(teacher: Path):
    from irtools.frontends.students.networks.checkpoints import load_network

    return load_network(teacher)


def make(text: str, network: object, seed: int = 0):
    from irtools.frontends.students.networks.make_student import make_student
    from irtools.frontends.students.networks.spec import parse_student

    return make_student(parse_student(text), network, seed)


def test_chosen_layers_are_the_teachers(network) -> None:
    student, said = make("layers=0,2", network)
    assert said == "layers 0, 2 of the teacher's 3"
    assert student.config.num_hidden_layers == 2
    own, known = student.state_dict(), network.state_dict()
    for name, tensor in own.items():
        wanted = known[name.replace("encoder.layer.1.", "encoder.layer.2.")]
        assert torch.equal(tensor, wanted), name
    # What the student computes: the teacher without its layer 1.
    ids = torch.tensor([[2, 5, 6, 3]])
    hidden = network.bert.embeddings(ids)
    for number in (0, 2):
        hidden = network.bert.encoder.layer[number](hidden)
    logits = network.classifier(network.bert.pooler(hidden))
    torch.testing.assert_close(student(input_ids=ids).logits, logits)


def test_a_layer_that_is_not_there(network) -> None:
    with pytest.raises(UsageError, match="layers 0 to 2, and no layer 3"):
        make("layers=0,3", network)


def test_shrinking_depth_keeps_the_weights(network) -> None:
    student, said = make("hidden=32,layers=2", network)
    assert "100 % of its weights are the teacher's" in said
    # g(m) = m N / M: layers 1 and 2 of 0, 1, 2.
    name = "bert.encoder.layer.{}.output.dense.weight"
    for own, known in ((0, 1), (1, 2)):
        assert torch.equal(
            student.state_dict()[name.format(own)], network.state_dict()[name.format(known)]
        )


def test_shrinking_width_draws_by_the_seed(network) -> None:
    student, said = make("hidden=16,layers=1", network)
    config = student.config
    assert (config.hidden_size, config.intermediate_size, config.num_attention_heads) == (16, 24, 2)
    assert "width 16, 2 heads" in said
    again, _ = make("hidden=16,layers=1", network)
    other, _ = make("hidden=16,layers=1", network, seed=1)
    key = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(student.state_dict()[key], again.state_dict()[key])
    assert not torch.equal(student.state_dict()[key], other.state_dict()[key])


def test_making_a_student_leaves_the_random_state_alone(network) -> None:
    before = torch.random.get_rng_state()
    make("hidden=16,layers=1", network)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hidden=16,layers=9", "deeper than its teacher of 3"),
        ("hidden=30,heads=4,layers=1", "4 heads do not divide the width 30"),
    ],
)
def test_sizes_that_contradict(network, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(text, network)


@pytest.mark.parametrize("text", ["layers=0", "hidden=16,layers=1"])
def test_an_onnx_teacher_has_no_layers_to_give(text: str) -> None:
    with pytest.raises(UsageError, match="this teacher is an ONNX model"):
        make(text, None)


def test_shared_layers_cannot_be_chosen() -> None:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    config = AlbertConfig(
        vocab_size=40,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
    )
    with pytest.raises(UnsupportedError, match="its layers share their weights"):
        make("layers=0", AlbertForSequenceClassification(config))


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("DistilBert", {"dim": 32, "n_heads": 4, "n_layers": 3, "hidden_dim": 48}),
        ("Roberta", {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3}),
    ],
)
def test_other_families(family: str, sizes: dict[str, int]) -> None:
    import transformers

    config = getattr(transformers, f"{family}Config")(vocab_size=40, **sizes)
    network = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    chosen, _ = make("layers=0,2", network)
    assert chosen.config.num_hidden_layers == 2
    shrunk, _ = make("hidden=16,layers=2", network)
    assert shrunk.config.hidden_size == 16
    ids = torch.tensor([[5, 6, 7]])
    assert shrunk(input_ids=ids).logits.shape == chosen(input_ids=ids).logits.shape
