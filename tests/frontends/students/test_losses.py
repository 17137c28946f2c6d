"""Every term of the loss against numbers computed by hand or with numpy, gradients included."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def losses():
    from irtools.frontends.students.training import losses

    return losses


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def draw(*shape: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_soft_loss_of_one_sample_by_hand(losses) -> None:
    # T = 2: softmax([0, ln 3]) = [1/4, 3/4] and softmax([0, 0]) = [1/2, 1/2].
    teacher = torch.tensor([[0.0, 2 * np.log(3.0)]], dtype=torch.float64)
    student = torch.zeros(1, 2, dtype=torch.float64)
    wanted = 4 * (0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5))
    found = losses.soft_loss(student, teacher, 2.0, "multi-class")
    assert found.item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_soft_loss_has_the_gradient_of_hinton(losses, temperature: float) -> None:
    student, teacher = draw(4, 5).requires_grad_(), 3 * draw(4, 5, seed=1)
    losses.soft_loss(student, teacher, temperature, "multi-class").backward()
    s, t = student.detach().numpy() / temperature, teacher.numpy() / temperature
    wanted = temperature * (softmax(s) - softmax(t)) / 4
    np.testing.assert_allclose(student.grad.numpy(), wanted, rtol=1e-10, atol=1e-12)


def test_temperature_keeps_the_size_of_the_gradient(losses) -> None:
    """For high temperatures the gradient tends to (s - t) / (N C) of centred logits."""
    student, teacher = draw(3, 4).requires_grad_(), draw(3, 4, seed=1)
    losses.soft_loss(student, teacher, 1e5, "multi-class").backward()
    difference = (student - teacher).detach().numpy()
    wanted = (difference - difference.mean(axis=1, keepdims=True)) / (3 * 4)
    np.testing.assert_allclose(student.grad.numpy(), wanted, rtol=1e-3, atol=1e-5)


def test_soft_loss_of_several_labels(losses) -> None:
    student, teacher = draw(3, 4).requires_grad_(), 2 * draw(3, 4, seed=1)
    found = losses.soft_loss(student, teacher, 2.0, "multi-label")
    s, t = student.detach().numpy() / 2, teacher.numpy() / 2
    p, q = sigmoid(s), sigmoid(t)
    wanted = 4 * -(q * np.log(p) + (1 - q) * np.log(1 - p)).mean()
    assert found.item() == pytest.approx(wanted, rel=1e-10)
    found.backward()
    np.testing.assert_allclose(student.grad.numpy(), 2 * (p - q) / 12, rtol=1e-9, atol=1e-12)


def test_soft_loss_of_numbers_has_no_temperature(losses) -> None:
    student, teacher = draw(3, 1), draw(3, 1, seed=1)
    wanted = np.square((student - teacher).numpy()).mean()
    for temperature in (1.0, 4.0):
        found = losses.soft_loss(student, teacher, temperature, "regression")
        assert found.item() == pytest.approx(wanted, rel=1e-12)


def test_hard_losses(losses) -> None:
    scores = draw(3, 4)
    classes = torch.tensor([1, 0, 3])
    picked = softmax(scores.numpy())[np.arange(3), classes.numpy()]
    found = losses.hard_loss(scores, classes, "multi-class")
    assert found.item() == pytest.approx(-np.log(picked).mean(), rel=1e-10)
    flags = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
    p = sigmoid(scores.numpy())
    wanted = -np.where(flags.numpy() == 1, np.log(p), np.log(1 - p)).mean()
    found = losses.hard_loss(scores, flags, "multi-label")
    assert found.item() == pytest.approx(wanted, rel=1e-10)
    targets = torch.tensor([1.0, 2.0, 3.0])
    found = losses.hard_loss(scores[:, :1], targets, "regression")
    wanted = np.square(scores[:, 0].numpy() - targets.numpy()).mean()
    assert found.item() == pytest.approx(wanted, rel=1e-6)


MASK = ((1, 1, 1, 1), (1, 1, 0, 0))


def test_cosine_loss_leaves_padding_out(losses) -> None:
    student, teacher = draw(2, 4, 6), draw(2, 4, 6, seed=1)
    mask = torch.tensor(MASK)
    s, t = student.numpy(), teacher.numpy()
    cosines = (s * t).sum(-1) / np.linalg.norm(s, axis=-1) / np.linalg.norm(t, axis=-1)
    wanted = 1 - cosines[np.array(MASK) == 1].mean()
    assert losses.cosine_loss(student, teacher, mask).item() == pytest.approx(wanted, rel=1e-10)
    student[1, 2:] = 1e6
    assert losses.cosine_loss(student, teacher, mask).item() == pytest.approx(wanted, rel=1e-10)
    assert losses.cosine_loss(2 * teacher, teacher, mask).item() == pytest.approx(0, abs=1e-12)


def test_hidden_loss_leaves_padding_out(losses) -> None:
    student, teacher = draw(2, 4, 6), draw(2, 4, 6, seed=1)
    mask = torch.tensor(MASK)
    kept = np.array(MASK) == 1
    wanted = np.square(student.numpy() - teacher.numpy())[kept].mean()
    assert losses.hidden_loss(student, teacher, mask).item() == pytest.approx(wanted, rel=1e-10)
    student[1, 2:] = 1e6
    assert losses.hidden_loss(student, teacher, mask).item() == pytest.approx(wanted, rel=1e-10)


def test_attention_scores_and_loss(losses) -> None:
    q, k = draw(2, 4, 6), draw(2, 4, 6, seed=1)
    found = losses.attention_scores(q, k, heads=2)
    split = [x.numpy().reshape(2, 4, 2, 3).transpose(0, 2, 1, 3) for x in (q, k)]
    wanted = np.einsum("nasd,natd->nast", *split) / np.sqrt(3)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-10)
    other = losses.attention_scores(draw(2, 4, 6, seed=2), k, heads=2)
    squared = np.square(found.numpy() - other.numpy()).mean(axis=1)
    pairs = np.einsum("ns,nt->nst", MASK, MASK) == 1
    loss = losses.attention_loss(found, other, torch.tensor(MASK))
    assert loss.item() == pytest.approx(squared[pairs].mean(), rel=1e-10)


def test_relation_loss_of_different_widths(losses) -> None:
    student, teacher = draw(2, 4, 6).requires_grad_(), draw(2, 4, 8, seed=1)
    mask = torch.tensor(MASK)

    def relations(x: np.ndarray) -> np.ndarray:
        width = x.shape[-1] // 2
        heads = x.reshape(2, 4, 2, width).transpose(0, 2, 1, 3)
        scores = np.einsum("nasd,natd->nast", heads, heads) / np.sqrt(width)
        scores = np.where(np.array(MASK)[:, None, None, :] == 1, scores, -1e9)
        return softmax(scores)

    s, t = relations(student.detach().numpy()), relations(teacher.numpy())
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(t > 0, t * (np.log(t) - np.log(s)), 0).sum(-1).mean(axis=1)
    wanted = divergence[np.array(MASK) == 1].mean()
    found = losses.relation_loss(student, teacher, mask, heads=2)
    assert found.item() == pytest.approx(wanted, rel=1e-5)
    found.backward()
    # Padding is neither asked nor answered for.
    assert not student.grad[1, 2:].any()
    assert student.grad[1, :2].any()


def test_equal_relations_cost_nothing(losses) -> None:
    x = draw(2, 4, 6)
    assert losses.relation_loss(x, x, torch.tensor(MASK), 3).item() == pytest.approx(0, abs=1e-9)
