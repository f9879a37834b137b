"""Reading, splitting and downloading MNIST: against torchvision, and against a server of our own."""

import errno
import gzip
import hashlib
import http.server
import multiprocessing
import os
import pickle
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.data import DataLoader, Dataset

from mnist_helpers import data

NAMES = list(data.FILES)


# ---------------------------------------------------------------- real MNIST


def test_tensors_are_torchvisions(mnist_root):
    train, test = data._read_mnist(data.fetch(mnist_root))
    for (images, labels), is_train in ((train, True), (test, False)):
        theirs = torchvision.datasets.MNIST(mnist_root, train=is_train)
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        assert torch.equal(images[:, 0], theirs.data) and torch.equal(labels, theirs.targets)


def test_mean_and_std_are_those_of_the_training_images(mnist_root):
    images = data._read_mnist(data.fetch(mnist_root))[0][0].double() / 255
    assert round(images.mean().item(), 4) == data.MEAN and round(images.std().item(), 4) == data.STD


def test_the_split_is_fixed_stratified_and_complete(mnist_root, monkeypatch):
    monkeypatch.setenv("MNIST_PROFILE", "full")
    dataset = data.load_mnist(mnist_root, verbose=False)
    (images, labels), (_, test_labels) = data._read_mnist(data.fetch(mnist_root))
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (55_000, 5_000, 10_000)
    assert torch.equal(dataset.test.labels, test_labels)
    names = [split.name for split in (dataset.train, dataset.val, dataset.test, dataset.train_and_val)]
    assert names == ["train", "val", "test", "train and val"]
    share = torch.bincount(labels) / 12
    assert ((torch.bincount(dataset.val.labels) - share).abs() < 1).all()
    # Every image of the 60,000 is in exactly one of the two, with its label.
    both = dataset.train_and_val
    keys = {hash(row.numpy().tobytes()) for row in both.images.flatten(1)}
    assert len(both) == 60_000 and keys == {hash(row.numpy().tobytes()) for row in images.flatten(1)}
    digits = [both.images[both.labels == digit].sum() for digit in range(10)]
    assert digits == [images[labels == digit].sum() for digit in range(10)]
    # Pinned: the published figures of this course were measured on this split.
    held_out = data.stratified_mask(labels, 5_000).numpy()
    assert hashlib.md5(np.flatnonzero(held_out).astype("<i8").tobytes()).hexdigest() == SPLIT_MD5


SPLIT_MD5 = "6f5637eaf8e292448fbec01ecc16c0a4"


def test_quick_profile_keeps_a_part_of_each_split(mnist_root, monkeypatch, capsys):
    monkeypatch.setenv("MNIST_PROFILE", "quick")
    dataset = data.load_mnist(mnist_root)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == tuple(data.QUICK_IMAGES.values())
    assert dataset.epochs(20) == 2 and dataset.epochs(1) == 1
    assert "quick" in capsys.readouterr().out and "quick" in dataset.train.source
    for name, images in (("recorded", 55_000), ("quick", 8_000)):  # said in the notebook, it wins over the environment
        monkeypatch.setenv("MNIST_PROFILE", "full")
        dataset = data.load_mnist(mnist_root, profile=name, verbose=False)
        assert (dataset.profile, dataset.train.profile, len(dataset.train)) == (name, name, images)
    assert data.load_mnist(mnist_root, profile="recorded", verbose=False).epochs(20) == 20


def test_digits_are_prepared_as_mnist_was(mnist_root):
    """MNIST's own digits, cut out and prepared again, come back nearly as they were."""
    images = data._read_mnist(data.fetch(mnist_root))[1][0][:200, 0].float()
    again = torch.stack([data.prepare_digit(image) for image in images]).float()
    rows = torch.arange(28.0)
    for axis in (1, 2):
        centres, before = ((stack.sum(axis) * rows).sum(1) / stack.sum((1, 2)) for stack in (again, images))
        assert (centres - before).abs().median() < 0.5
    correlation = torch.stack([torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
                               for a, b in zip(again, images, strict=True)])
    assert correlation.median() > 0.95


# ---------------------------------------------------------------- splits, profiles, the sample


def test_stratified_mask_by_hand():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 21)
    mask = data.stratified_mask(labels, 10)
    # 10/101 of 50, 30 and 21 are 4.95, 2.97 and 2.08.
    assert torch.bincount(labels[mask]).tolist() == [5, 3, 2]
    assert torch.equal(mask, data.stratified_mask(labels, 10))
    assert not torch.equal(mask, data.stratified_mask(labels, 10, seed=1))
    with pytest.raises(ValueError, match="101"):
        data.stratified_mask(labels, 101)


def test_normalize():
    images = torch.tensor([0, 128, 255], dtype=torch.uint8)
    expected = (torch.tensor([0, 128, 255]) / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(data.normalize(images), expected)
    torch.testing.assert_close(data.normalize(images.float() / 255), expected)
    assert images.tolist() == [0, 128, 255]


def test_the_profile_is_one_of_those_there_are(monkeypatch):
    monkeypatch.delenv("MNIST_PROFILE", raising=False)
    assert data.profile() == "full"
    for name in ("full", "quick", "recorded", "trace"):
        monkeypatch.setenv("MNIST_PROFILE", name)
        assert data.profile() == name
    monkeypatch.setenv("MNIST_PROFILE", "fast")
    with pytest.raises(data.DataError, match="fast"):
        data.profile()


def test_a_split_is_a_dataset(tiny):
    images, labels = tiny
    split = data.Split(images, labels, "MNIST", "train")
    assert isinstance(split, Dataset) and len(split) == len(list(split)) == 100  # both the images
    image, label = split[7]
    assert image.shape == (1, 28, 28) and image.dtype == torch.uint8 and torch.equal(image, images[7])
    assert isinstance(label, int) and label == labels[7] and split[-1][1] == labels[-1]
    with pytest.raises(IndexError):
        split[100]
    first = split[:30]
    assert isinstance(first, data.Split) and (len(first), first.name, first.source) == (30, "train", "MNIST")
    assert torch.equal(first.images, images[:30]) and torch.equal(first.labels, labels[:30])
    assert split == split and isinstance(split == first, bool)
    again = pickle.loads(pickle.dumps(split))
    assert torch.equal(again.images, images) and again.name == "train"


def test_a_split_goes_through_a_dataloader_with_workers(tiny):
    split = data.Split(*tiny, "MNIST")
    batches = list(DataLoader(split, batch_size=32, num_workers=2))
    assert torch.equal(torch.cat([images for images, _ in batches]), split.images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), split.labels)


def test_without_files_and_network_the_digits_sample_announces_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MNIST_PROFILE", "full")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    dataset = data.load_mnist(tmp_path)
    said = capsys.readouterr().out
    assert "127.0.0.1:9" in said and "the digits sample, not MNIST" in said
    assert (dataset.name, len(dataset.train), len(dataset.val), len(dataset.test)) == ("digits", 1197, 200, 400)
    assert dataset.test.source == "the digits sample, not MNIST"
    images, labels = dataset.train.images, dataset.train.labels
    assert images.shape[1:] == (1, 28, 28) and images.dtype == torch.uint8 and labels.dtype == torch.int64
    # Scaled into a box of 20 pixels, and centred by mass.
    ink = images[:, 0] > 0
    assert ink.any(1).sum(1).max() == 20 and ink.any(2).sum(1).max() == 20
    rows = torch.arange(28.0)
    for axis in (1, 2):
        centres = (images[:, 0].float().sum(axis) * rows).sum(1) / images[:, 0].float().sum((1, 2))
        assert (centres - 14).abs().max() <= 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("ink", [torch.zeros(8, 8), torch.eye(300), torch.ones(1, 1), torch.ones(3, 200)])
def test_any_drawing_is_prepared(ink):
    page = data.prepare_digit(ink)
    assert page.shape == (28, 28) and page.dtype == torch.uint8
    assert page.any() == ink.any()


def test_a_drawing_with_channels_is_refused():
    with pytest.raises(ValueError, match=r"\(height, width\); this one has shape \(3, 8, 8\)"):
        data.prepare_digit(torch.ones(3, 8, 8))


# ---------------------------------------------------------------- downloads, from a server of our own


@pytest.fixture
def contents(monkeypatch):
    """Small stand-ins for the four files, with their checksums in the place of the real ones."""
    contents = {name: (name * 5000).encode() for name in NAMES}
    monkeypatch.setattr(data, "FILES", {name: hashlib.md5(content).hexdigest() for name, content in contents.items()})
    return contents


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        time.sleep(self.server.delay)
        status, body, length = self.server.answers.get(self.path.rpartition("/")[2], (404, b"", 0))
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(contents):
    """Start a mirror on 127.0.0.1; ``serve(change)`` lets ``change`` alter the archives it hands out."""
    servers = []

    def start(change=lambda archive: archive, status=200, claim=None):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.requests, server.delay = [], 0
        archives = {f"{name}.gz": change(gzip.compress(content)) for name, content in contents.items()}
        server.answers = {name: (status, archive, claim or len(archive)) for name, archive in archives.items()}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def address(server):
    return f"http://127.0.0.1:{server.server_address[1]}/mnist/"


def files(root):
    return {path.name: path.read_bytes() for path in (root / "MNIST" / "raw").iterdir()}


def test_download_stores_the_verified_files_with_progress(tmp_path, serve, contents, capsys):
    data.fetch(tmp_path, [address(serve())])
    assert files(tmp_path) == contents
    assert "train-images-idx3-ubyte: 100%" in capsys.readouterr().err


def test_files_appear_whole(tmp_path, serve, contents, monkeypatch):
    """The last step is a rename, so that nobody ever reads half a file."""
    renamed, rename = {}, os.replace

    def watch(temporary, path):
        path = Path(path)
        renamed[path.name] = Path(temporary).read_bytes()
        assert not path.exists()
        rename(temporary, path)

    monkeypatch.setattr(os, "replace", watch)
    data.fetch(tmp_path, [address(serve())])
    assert renamed == contents


def test_files_that_are_there_are_not_downloaded_again(tmp_path, serve):
    server = serve()
    data.fetch(tmp_path, [address(server)])
    data.fetch(tmp_path, [address(server)])
    assert len(server.requests) == 4


@pytest.mark.parametrize("bad", [
    pytest.param({"status": 503}, id="an error"),
    pytest.param({"change": lambda archive: gzip.compress(b"something else")}, id="another file"),
    pytest.param({"change": lambda archive: b"<html>please log in</html>"}, id="a web page"),
    pytest.param({"change": lambda archive: archive[: len(archive) // 2]}, id="half an archive"),
    pytest.param({"change": lambda archive: archive[:-1], "claim": 10_000_000}, id="a broken connection"),
    pytest.param({"change": lambda archive: archive[:30] + b"\xff\xff" + archive[32:]}, id="flipped bytes"),
])
def test_a_bad_mirror_is_followed_by_the_next(tmp_path, serve, contents, bad):
    bad, good = serve(**bad), serve()
    data.fetch(tmp_path, [address(bad), address(good)], timeout=2)
    assert files(tmp_path) == contents
    assert len(bad.requests) == len(good.requests) == 4


def test_a_mirror_that_never_answers_times_out(tmp_path, serve, contents):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        data.fetch(tmp_path, [f"http://127.0.0.1:{silent.getsockname()[1]}/", address(serve())], timeout=0.2)
    assert files(tmp_path) == contents


def test_a_failed_download_names_every_mirror_and_the_remedy(tmp_path, serve):
    bad = serve(change=lambda archive: gzip.compress(b"something else"))
    with pytest.raises(data.DownloadError) as failure:
        data.fetch(tmp_path, [address(bad), "http://127.0.0.1:9/"], timeout=1)
    assert all(part in str(failure.value) for part in (address(bad), "127.0.0.1:9", "MNIST_ROOT"))


@pytest.mark.parametrize("damage", [lambda content: content[:1000], lambda content: b"x" + content[1:]])
def test_a_damaged_file_is_named_and_fetched_again(tmp_path, serve, contents, capsys, damage):
    server = serve()
    data.fetch(tmp_path, [address(server)])
    path = tmp_path / "MNIST" / "raw" / NAMES[2]
    path.write_bytes(damage(contents[NAMES[2]]))
    assert list(data.damaged(tmp_path)) == [NAMES[2]]
    data.fetch(tmp_path, [address(server)])
    assert files(tmp_path) == contents
    assert len(server.requests) == 5
    assert f"{NAMES[2]} is damaged" in capsys.readouterr().out


def test_a_damaged_file_is_kept_until_its_replacement_is_verified(tmp_path, serve, contents):
    data.fetch(tmp_path, [address(serve())])
    path = tmp_path / "MNIST" / "raw" / NAMES[0]
    path.write_bytes(b"half")
    with pytest.raises(data.DownloadError, match=f"{NAMES[0]} is damaged"):
        data.fetch(tmp_path, ["http://127.0.0.1:9/"])
    assert path.read_bytes() == b"half"


def test_a_folder_that_cannot_be_written_gives_one_clear_error(tmp_path, serve):
    (tmp_path / "MNIST").write_text("a file where the folder should be")
    with pytest.raises(data.DataError, match="MNIST_ROOT"):
        data.fetch(tmp_path, [address(serve())])


def test_a_full_disk_gives_one_clear_error_and_leaves_nothing_half_written(tmp_path, serve, monkeypatch):
    def fsync(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(data.DataError, match=r"No space left on device"):
        data.fetch(tmp_path, [address(serve())])
    assert files(tmp_path) == {}


def _fetch_in_process(barrier, checksums, root, mirrors):
    data.FILES = checksums
    barrier.wait()
    data.fetch(root, mirrors)


def test_kernels_that_start_together_download_once(tmp_path, serve, contents):
    server = serve()
    server.delay = 0.3
    context = multiprocessing.get_context("spawn")
    arguments = context.Barrier(2), data.FILES, tmp_path, [address(server)]
    processes = [context.Process(target=_fetch_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert files(tmp_path) == contents
    assert len(server.requests) == 4
