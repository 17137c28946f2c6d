"""The terms together: weights, layer maps, learned maps, and what cannot be compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from irtools.errors import UnsupportedError, UsageError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

INNER = ("cosine", "embedding", "hidden", "attention", "relation")


@pytest.fixture(scope="module")
def network(teacher: Path):
    from irtools.frontends.students.networks.checkpoints import load_network

    return load_network(teacher).requires_grad_(False)


def student_of(network: object, text: str):
    from irtools.frontends.students.networks.make_student import make_student
    from irtools.frontends.students.networks.spec import parse_student

    return make_student(parse_student(text), network, 0)[0]


def objective_of(weights: dict[str, float], student: object, teacher: object, **given: object):
    from irtools.frontends.students.training.objective import make_objective

    fields = {"temperature": 2.0, "layer_map": None, "relation_heads": None} | given
    return make_objective(weights, "multi-class", student, teacher, **fields)


def batch_of(network) -> dict:
    ids = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
    mask = (ids != 0).long()
    batch = {"input_ids": ids, "attention_mask": mask}
    logits = network(**batch).logits
    return batch | {"labels": torch.tensor([0, 2]), "teacher_logits": logits}


def test_the_teacher_itself_has_nothing_to_learn(network) -> None:
    student = student_of(network, "layers=0,1,2")
    weights = {"soft": 1.0, **dict.fromkeys(INNER, 1.0)}
    objective = objective_of(weights, student, network)
    assert objective.layer_map == (0, 1, 2)
    total, terms, _ = objective(student, student, batch_of(network))
    assert set(terms) == set(weights)
    assert total.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ["hard", "soft", *INNER])
def test_every_term_teaches(network, name: str) -> None:
    text = "layers=0,2" if name == "attention" else "hidden=16,layers=2"
    student = student_of(network, text)
    objective = objective_of({name: 1.0}, student, network)
    batch = batch_of(network)
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-2)
    first, terms, _ = objective(student, student, batch)
    assert set(terms) == {name}
    assert first.item() > 0
    first.backward()
    optimizer.step()
    second, _, _ = objective(student, student, batch)
    assert second.item() < first.item()


def test_weights_weigh(network) -> None:
    student = student_of(network, "layers=0,2")
    batch = batch_of(network)
    objective = objective_of({"soft": 0.3, "hard": 0.7, "cosine": 0}, student, network)
    total, terms, outputs = objective(student, student, batch)
    assert set(terms) == {"soft", "hard"}
    wanted = 0.3 * terms["soft"].item() + 0.7 * terms["hard"].item()
    assert total.item() == pytest.approx(wanted, rel=1e-6)
    assert outputs.hidden_states is None


def test_maps_are_learned_only_where_widths_differ(network) -> None:
    from irtools.frontends.students.networks.anatomy import PROJECTIONS

    narrow, deep = student_of(network, "hidden=16,layers=2"), student_of(network, "layers=0,2")
    weights = {"hidden": 1.0, "embedding": 1.0}
    objective_of(weights, narrow, network)
    objective_of(weights, deep, network)
    assert set(getattr(narrow, PROJECTIONS)) == {"hidden", "embedding"}
    assert not hasattr(deep, PROJECTIONS)


def test_projections_are_not_saved(network, tmp_path: Path) -> None:
    from irtools.frontends.students.networks.checkpoints import load_network, save_network

    narrow = student_of(network, "hidden=16,layers=2")
    objective_of({"hidden": 1.0}, narrow, network)
    save_network(narrow, tmp_path)
    assert set(load_network(tmp_path).state_dict()) == {
        name for name in narrow.state_dict() if "distillation" not in name
    }


def test_hooks_are_taken_off_again(network) -> None:
    student = student_of(network, "layers=0,2")
    objective_of({"relation": 1.0}, student, network)(student, student, batch_of(network))
    for module in (*student.modules(), *network.modules()):
        if type(module).__name__ == "Linear":
            assert not module._forward_hooks


@pytest.mark.parametrize(
    ("own", "known", "wanted"),
    [
        (3, 6, (1, 3, 5)),
        (4, 12, (2, 5, 8, 11)),
        (2, 3, (1, 2)),
        (1, 6, (5,)),
        (6, 6, tuple(range(6))),
    ],
)
def test_the_last_layer_learns_from_the_last(own: int, known: int, wanted: tuple) -> None:
    from irtools.frontends.students.networks.anatomy import uniform_map

    assert uniform_map(own, known) == wanted


def test_what_cannot_be_compared(network) -> None:
    narrow = student_of(network, "hidden=16,layers=2")
    with pytest.raises(UsageError, match="look inside the teacher, and an ONNX teacher"):
        objective_of({"hidden": 1.0}, narrow, None)
    with pytest.raises(UnsupportedError, match="student has 2 heads and the teacher 4"):
        objective_of({"attention": 1.0}, narrow, network)
    with pytest.raises(UsageError, match="5 relation heads do not divide"):
        objective_of({"relation": 1.0}, narrow, network, relation_heads=5)
    for layer_map in ((1,), (0, 3)):
        with pytest.raises(UsageError, match="expected 2 numbers, one per student layer, from 0"):
            objective_of({"hidden": 1.0}, narrow, network, layer_map=layer_map)
