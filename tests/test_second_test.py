"""The second test set, on a small stand-in of its files."""

import json
import struct

import numpy
import pytest
import torch
from torchvision.datasets import QMNIST

from mnist_helpers import checkpoint, data
from mnist_helpers.course import notebooks, pages, records, second_test
from mnist_helpers.download import DataError, DownloadError

MORE = 40


class Constant(torch.nn.Module):
    """Reads every image as the digit that its one weight says."""

    def __init__(self):
        super().__init__()
        self.digit = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return torch.nn.functional.one_hot(self.digit.long().expand(len(x)), 10).float()


@pytest.fixture
def root(tmp_path, mnist_root):
    """MNIST's test files, and QMNIST's with 40 further images: labels 1 by one student and one employee each, but
    every fourth, which is 2."""
    (tmp_path / "MNIST").mkdir()
    (tmp_path / "MNIST" / "raw").symlink_to(mnist_root / "MNIST" / "raw")
    labels = numpy.fromfile(mnist_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", numpy.uint8, offset=8)
    targets = numpy.zeros((10_000 + MORE, 8), ">i4")
    targets[:, 0] = [*labels, *(2 if image % 4 == 0 else 1 for image in range(MORE))]
    targets[:10_000, 2] = [2_100 + image % 250 if image < 5_001 else image % 48 for image in range(10_000)]
    targets[10_000:, 2] = [(2_200 if image < 20 else 100) + image % 5 for image in range(MORE)]
    raw = tmp_path / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    images = numpy.zeros((10_000 + MORE, 28, 28), numpy.uint8)
    for name, values, kind in (("qmnist-test-images-idx3-ubyte", images, 0x0803),
                               ("qmnist-test-labels-idx2-int", targets, 0x0C02)):
        (raw / name).write_bytes(struct.pack(f">{1 + values.ndim}i", kind, *values.shape) + values.tobytes())
    return tmp_path


def test_the_further_digits_are_loaded_and_damage_is_named(root, monkeypatch):
    images, labels, writers = second_test.load(root)
    assert images.shape == (MORE, 1, 28, 28) and labels[:4].tolist() == [2, 1, 1, 1] and writers[10_020] == 100
    path = root / "QMNIST" / "raw" / "qmnist-test-labels-idx2-int"
    path.write_bytes(path.read_bytes()[:12] + bytes(10_000 * 32) + path.read_bytes()[12 + 10_000 * 32:])
    with pytest.raises(DataError, match="delete this folder"):
        second_test.load(root)
    path.unlink()
    monkeypatch.setattr(QMNIST, "resources", {"test": [("file:///nowhere/a.gz", "0"), ("file:///nowhere/b.gz", "0")]})
    with pytest.raises(DownloadError, match="second-test"):
        second_test.load(root)


def test_kept_runs_are_measured_and_fill_the_column(root, monkeypatch):
    folder = root / "kept"
    monkeypatch.setattr(checkpoint, "kept_folder", lambda: folder)
    monkeypatch.setattr(second_test, "project_root", lambda: root)
    weights = {f"Constant-s{seed}": float(digit) for seed, digit in enumerate((1, 1, 2))}
    folder.mkdir()
    (root / "results").mkdir()
    for name in weights:
        (folder / f"{name}.safetensors").touch()
    monkeypatch.setattr(checkpoint, "read_kept", lambda path: {"weights": {"digit": torch.tensor(weights[path.stem])}})
    monkeypatch.setattr(records, "all_seeds", lambda: {"Constant": {  # the last one's weights are not kept
        seed: {"id": f"Constant-s{seed}", "test_total": 10_000,
               "mistakes": {str(image): 0 for image in [*range(0, 10_000, 250), seed + 1]}} for seed in range(4)}})
    monkeypatch.setattr(notebooks, "network", lambda name: type("Module", (), {"Constant": Constant}))
    assert second_test.results() == {} and "second-test" in second_test.sentence()
    found = second_test.measure(root, say=lambda line: None)["Constant"]
    assert found["ids"] == list(weights) and found["mean"] == pytest.approx(100 * (0.75 + 0.75 + 0.25) / 3)
    assert found["students"] == found["employees"] == pytest.approx(found["mean"])
    assert second_test.results()["Constant"] == json.loads(second_test.file().read_text())["Constant"]
    # Every 250th image is wrong: all by one of 250 students, and by few of 48 employees.
    assert found["wider"] > 1.5 and f"{found['wider']:.1f} times as wide" in second_test.sentence()
    assert second_test.shown(found).startswith("58.33 ±") and second_test.shown(found).endswith("(3)")
    monkeypatch.setattr(records, "all_seeds", lambda: {"Constant": {0: {"id": "another"}}})
    assert second_test.results() == {}, "other runs stand in the records now"


def test_the_page_has_the_column():
    assert "QMNIST" in pages.halves() and data.project_root() == second_test.file().parents[1]
