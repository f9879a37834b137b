"""`FullMatrixAdam` against scipy's matrix root, and turned around, which it must not notice and Adam does."""

import numpy as np
import pytest
import scipy.linalg
import torch

import mnist_helpers as mh
from mnist_helpers import optim
from mnist_helpers.optim import FullMatrixAdam


def quadratic(turn, steps, optimizer, **options):
    """Where ``steps`` of an optimiser lead on a long valley, the plane being turned by ``turn`` radians."""
    cosine, sine = np.cos(turn), np.sin(turn)
    rotation = torch.tensor([[cosine, -sine], [sine, cosine]])
    valley = rotation @ torch.diag(torch.tensor([100.0, 1.0], dtype=torch.float64)) @ rotation.T
    point = (rotation @ torch.tensor([1.0, 1.0], dtype=torch.float64)).requires_grad_()
    optimizer = optimizer([point], **options)
    for _ in range(steps):
        optimizer.zero_grad()
        (point @ valley @ point / 2).backward()
        optimizer.step()
    return rotation.T @ point.detach()


def test_each_tensor_moves_by_the_learning_rate():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 1))
    optimizer = FullMatrixAdam(model.parameters(), lr=0.03)
    for _ in range(3):
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.zero_grad()
        model(torch.randn(9, 6)).square().sum().backward()
        optimizer.step()
        for old, new in zip(before, model.parameters(), strict=True):
            assert (new - old).square().mean().sqrt().item() == pytest.approx(0.03, rel=1e-4)


def test_one_step_with_scipys_matrix_root():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 6))
    point = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    optimizer = FullMatrixAdam([point], lr=0.5, momentum=0.9, decay=0.9, damping=1e-3, every=1)
    for gradient in (first, second):
        before = point.detach().clone()
        point.grad = torch.tensor(gradient).view(2, 3)
        optimizer.step()
    products = (0.9 * np.outer(first, first) + np.outer(second, second)) * 0.1
    products += 1e-3 * np.linalg.eigvalsh(products).max() * np.eye(6)
    step = np.linalg.solve(scipy.linalg.sqrtm(products), 0.9 * first + second)
    np.testing.assert_allclose((before - point).detach().flatten(), 0.5 * step / np.sqrt(np.mean(step**2)))


def test_its_path_turns_with_the_plane_and_adams_does_not():
    for optimizer, same in ((FullMatrixAdam, True), (torch.optim.Adam, False)):
        straight, turned = (quadratic(turn, 20, optimizer, lr=0.05) for turn in (0, 0.7))
        assert torch.allclose(straight, turned, atol=1e-6) == same


def test_the_root_is_taken_anew_at_powers_of_two_and_every_so_often():
    point = torch.zeros(2, requires_grad=True)
    optimizer = FullMatrixAdam([point], every=10)
    fresh = []
    for step in range(1, 31):
        before = optimizer.state[point].get("root")
        point.grad = torch.randn(2)
        optimizer.step()
        if optimizer.state[point]["root"] is not before:
            fresh.append(step)
    assert fresh == [1, 2, 4, 8, 10, 16, 20, 30]


def test_a_gradient_that_is_not_finite_is_left_to_the_loop_to_report(tiny, network):
    images, labels = tiny
    unusable = images / 255
    unusable[0] = float("nan")
    model = network()
    with pytest.raises(mh.train.TrainingDiverged):
        mh.fit(model, [(unusable, labels)], None, epochs=1, optimizer=FullMatrixAdam(model.parameters()))


def test_gradients_of_zero_move_nothing():
    point = torch.ones(3, requires_grad=True)
    optimizer = FullMatrixAdam([point])
    point.grad = torch.zeros(3)
    optimizer.step()
    assert point.tolist() == [1, 1, 1]


def test_goes_on_from_its_state_bit_for_bit():
    def train(model, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            optimizer.zero_grad()
            model(torch.randn(8, 5)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    through, first, second = (torch.nn.Linear(5, 3) for _ in range(3))
    first.load_state_dict(through.state_dict())
    whole, half, rest = (FullMatrixAdam(model.parameters(), every=4) for model in (through, first, second))
    train(through, whole, range(25))
    train(first, half, range(11))
    second.load_state_dict(first.state_dict())
    rest.load_state_dict(half.state_dict())
    train(second, rest, range(11, 25))
    assert torch.equal(second.weight, through.weight)


def test_too_large_a_layer_is_refused():
    with pytest.raises(ValueError, match=r"3,000 weights.*9,000,000 numbers.*another optimiser"):
        FullMatrixAdam(torch.nn.Linear(100, 30).parameters())


def test_apples_gpu_needs_no_eigenvectors_of_its_own(monkeypatch):
    """The oldest version of PyTorch allowed has none for it. Such a device is not here: a stand-in plays it."""
    class OnMps:
        device = torch.device("mps")

        def cpu(self):
            return torch.diag(torch.tensor([1.0, 4.0]))

    asked = []
    monkeypatch.setattr(torch.Tensor, "to", lambda part, device: asked.append(device) or part)
    values, vectors = optim.eigenvectors(OnMps())
    assert values.tolist() == [1, 4] and vectors.abs().tolist() == [[1, 0], [0, 1]]
    assert asked == [torch.device("mps")] * 2
