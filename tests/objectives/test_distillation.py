import numpy as np
import pytest
import torch

from xkd.objectives.distillation import CrossModalDistillation, entropy


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture
def rows():
    rng = np.random.default_rng(1)
    return rng.normal(size=(6, 5)), rng.normal(size=(2, 5))  # three student views and one teacher view of two clips


def test_cross_entropy_over_all_pairs_of_the_same_clip(rows):
    student, teacher = rows
    direction = CrossModalDistillation(5, 0.1, 0.9).double()
    direction.centre.copy_(torch.tensor([[0.3, -0.1, 0.2, 0.0, 0.5]]))
    target = softmax((teacher - direction.centre.numpy()) / 0.07)
    pairs = [-(target[b] * np.log(softmax(student[v * 2 + b] / 0.1))).sum() for v in range(3) for b in range(2)]
    got = direction(torch.from_numpy(student), direction.targets(torch.from_numpy(teacher), 0.07))
    assert got.item() == pytest.approx(np.mean(pairs), rel=1e-9)


def test_only_the_student_gets_a_gradient(rows):
    student, teacher = (torch.from_numpy(x).requires_grad_() for x in rows)
    direction = CrossModalDistillation(5, 0.1, 0.9).double()
    direction(student, direction.targets(teacher, 0.1)).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_the_centre_moves_a_tenth_towards_the_batch_mean(rows):
    direction = CrossModalDistillation(5, 0.1, 0.9).double()
    teacher = torch.from_numpy(rows[1])
    direction.update_centre(teacher)
    direction.update_centre(teacher)
    np.testing.assert_allclose(direction.centre.numpy()[0], 0.19 * rows[1].mean(0), rtol=1e-9)


def _centre_of_one_rank(rank, ranks, address, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=ranks)
    direction = CrossModalDistillation(3, 0.1, 0.9).double()
    direction.update_centre(torch.full((2, 3), float(rank + 1), dtype=torch.double))
    torch.save(direction.centre, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_the_centre_moves_by_the_mean_of_all_ranks(tmp_path):
    torch.multiprocessing.spawn(_centre_of_one_rank, (2, tmp_path / "address", tmp_path), nprocs=2)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), torch.full((1, 3), 0.15, dtype=torch.double))


def test_entropy_is_log_k_when_the_teacher_says_nothing_and_0_when_it_is_sure():
    assert entropy(torch.full((3, 8), 1 / 8)).item() == pytest.approx(np.log(8), rel=1e-6)
    assert entropy(torch.eye(4)).item() == 0
