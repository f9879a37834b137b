"""Our loader in anybody's loop, and its work counted: what is gathered, augmented and drawn for how many batches."""

import functools
import itertools
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import AUGMENT, in_a_sentence, same, train
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

import mnist_helpers as mh
from mnist_helpers import loader
from mnist_helpers.data import Split
from mnist_helpers.train import train_epoch


@pytest.fixture
def split(tiny):
    return Split(*tiny, "MNIST", "train")


def together(batches):
    inputs, targets = zip(*batches, strict=True)
    return torch.cat(inputs), torch.cat(targets)


# ---------------------------------------------------------------- a drop-in


def test_in_a_plain_loop_it_gives_the_bits_of_the_naive_order(split, network):
    models = []
    for loading in (True, False):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(7)
        if loading:
            batches = mh.Loader(split, batch_size=32)
        else:
            draws = torch.Generator().manual_seed(torch.randint(2**62, ()).item())
        for _ in range(2):
            naive = () if loading else (
                (mh.normalize(split.images[rows]), split.labels[rows])
                for rows in torch.randperm(100, generator=draws).split(32))
            for inputs, targets in batches if loading else naive:
                optimizer.zero_grad()
                F.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
        models.append(model)
    assert same(*models)


def test_it_takes_the_place_of_a_dataloader(split):
    for drop_last, shuffle in itertools.product((False, True), repeat=2):
        ours = mh.Loader(split, batch_size=32, drop_last=drop_last, shuffle=shuffle)
        theirs = DataLoader(split, batch_size=32, drop_last=drop_last, shuffle=shuffle)
        for name in ("dataset", "batch_size", "drop_last"):
            assert getattr(ours, name) is getattr(theirs, name)
        assert len(ours) == len(theirs) == len(list(ours)) == len(list(ours))  # again and again
        for (inputs, targets), (images, labels) in zip(ours, theirs, strict=True):
            assert inputs.shape == images.shape and targets.dtype == labels.dtype
            assert inputs.dtype == torch.float32
            assert shuffle or (torch.equal(inputs, mh.normalize(images)) and torch.equal(targets, labels))
    inputs, targets = together(mh.Loader(split, batch_size=32))
    order = [int((mh.normalize(split.images) == image).flatten(1).all(1).nonzero()) for image in inputs]
    assert sorted(order) == list(range(100)) != order and targets.tolist() == split.labels[order].tolist()


def test_its_generator_is_the_one_it_was_given(split):
    epochs = []
    for generator in (torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)):
        torch.manual_seed(len(epochs))  # not what it draws from
        batches = mh.Loader(split, 32, augment=AUGMENT, generator=generator)
        epochs.append([together(batches)[0] for _ in range(2)])
    assert all(map(torch.equal, *epochs)) and not torch.equal(*epochs[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("augment", [None, AUGMENT])
def test_arrays_and_integers_of_any_width_are_the_same_images(split, dtype, augment):
    def inputs(data):
        return together(mh.Loader(data, 32, augment=augment, generator=torch.Generator().manual_seed(0)))

    arrays = split.images.numpy().astype(dtype), split.labels.numpy().astype(dtype)
    for ours, theirs in zip(inputs(split), inputs(arrays), strict=True):
        assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype


def test_floats_are_taken_as_they_are_if_they_can_be_meant(split):
    floats = mh.normalize(split.images), split.labels
    assert torch.equal(together(mh.Loader(floats, shuffle=False))[0], floats[0])
    with pytest.raises(ValueError) as error:
        list(mh.Loader((split.images.float(), split.labels)))
    assert in_a_sentence(error) and "255" in str(error.value)


def test_normalization_is_mnists_none_or_a_function(split):
    scaled = split.images.float() / 255
    for normalize, expected in ((True, mh.normalize(scaled)), (False, scaled), (lambda images: 2 * images, 2 * scaled)):
        assert torch.equal(together(mh.Loader(split, normalize=normalize, shuffle=False))[0], expected)


def test_senseless_data_are_refused(split):
    images, labels = split.images, split.labels
    for wrong, options in (((images, labels[1:]), {}), ((images[:0], labels[:0]), {}), (split, {"batch_size": 0})):
        with pytest.raises(ValueError) as error:
            mh.Loader(wrong, **options)
        assert in_a_sentence(error)


def test_a_function_as_augmentation_is_given_one_batch_after_another(split, monkeypatch):
    sizes, generators = [], set()

    def with_generator(images, generator):
        sizes.append(len(images))
        generators.add(generator)
        return images

    batches = mh.Loader(split, 32, augment=with_generator)
    plain = together(mh.Loader(split, 32, shuffle=False))[0]
    list(batches)
    assert sizes == [32, 32, 32, 4] and generators == {batches.generator}
    flips = (lambda images: images.flip(3), functools.partial(torch.flip, dims=[3]),
             lambda images, axis=3: images.flip(axis))
    for flip in flips:  # functions of the images alone; integers they hand on are normalised
        assert torch.equal(together(mh.Loader(split, 32, augment=flip, shuffle=False))[0], plain.flip(3))


def test_the_precision_is_that_of_the_inputs(split):
    for precision in (None, torch.bfloat16):
        inputs, targets = next(iter(mh.Loader(split, augment=AUGMENT, precision=precision)))
        assert inputs.dtype == (precision or torch.float32) and targets.dtype == torch.int64


def test_a_dataloader_of_the_same_batches_gives_the_same_weights(split, network):
    floats = TensorDataset(mh.normalize(split.images), split.labels)
    makers = (mh.Loader, DataLoader, lambda _, *arguments, **options: DataLoader(floats, *arguments, **options))
    models = [network() for _ in makers]
    for model, make in zip(models, makers, strict=True):
        train_with, val = (make(split, size, shuffle=False, generator=torch.Generator()) for size in (32, 50))
        torch.manual_seed(0)  # which dropout draws from
        train(model, train_with, val=val, epochs=2)
    assert same(models[0], models[1]) and same(models[0], models[2])


# ---------------------------------------------------------------- speed, as counts that no busy machine changes


class Operations(TorchDispatchMode):
    """Counts every operation PyTorch runs inside, by name; ``aten._local_scalar_dense`` waits for the device."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        self.counts[str(operation.overloadpacket)] += 1
        return operation(*arguments, **keywords or {})


def operations(network, split, batch_size, repeats=1):
    images, labels = split.images.repeat(repeats, 1, 1, 1), split.labels.repeat(repeats)
    augment = mh.Augment(mh.CenterCropResize(22, p=0.1), mh.Rotation(15), mh.Translation(0.1), mh.Brightness(0.2))
    batches = mh.Loader(Split(images, labels), batch_size=batch_size, augment=augment)
    model = network()
    with Operations() as inside:
        # SGD, since Adam reads its own step counts, which stay on the CPU.
        train_epoch(model, batches, optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
    return inside.counts


def test_an_epoch_does_not_wait_for_the_device_batch_by_batch(network, split, monkeypatch):
    """... nor block by block: with as many blocks as batches, each is gathered and augmented anew."""
    monkeypatch.setattr(loader, "BLOCK_IMAGES", 20)
    few, many = operations(network, split, 20), operations(network, split, 20, repeats=4)
    waits = [sum(counts[f"aten.{name}"] for name in ("_local_scalar_dense", "nonzero", "equal"))
             for counts in (few, many)]
    assert waits[0] == waits[1] > 0


def test_no_work_is_done_image_by_image(network, split):
    """A batch of twice the size takes the same operations, each on more images."""
    assert operations(network, split, 20) == operations(network, split, 40, repeats=2)


def test_images_are_gathered_and_resampled_once_for_many_batches(network, split, monkeypatch):
    for block_images, blocks in ((1024, 1), (40, 3), (10, 5)):  # of 100 images in batches of 20
        monkeypatch.setattr(loader, "BLOCK_IMAGES", block_images)
        counts = operations(network, split, 20)
        assert counts["aten.grid_sampler_2d"] == blocks
        assert counts["aten.index"] == 2 * blocks  # the images and their labels


def test_blocks_change_nothing(network, split, monkeypatch):
    """Not a bit of the weights, also with a last batch and a last block that are smaller than the others."""
    models = []
    for block_images in (1, 64, 1024):
        monkeypatch.setattr(loader, "BLOCK_IMAGES", block_images)
        models.append(network())
        mh.set_seed(0)
        train(models[-1], split, augment=AUGMENT)
    assert same(models[0], models[1]) and same(models[0], models[2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="waiting for a GPU takes a GPU: PyTorch counts it on CUDA")
def test_an_epoch_does_not_wait_for_a_gpu_batch_by_batch(network, tiny, monkeypatch):
    monkeypatch.setattr(loader, "BLOCK_IMAGES", 20)
    waits = []
    for repeats in (1, 4):
        data = [tensor.repeat(repeats, *[1] * (tensor.ndim - 1)).cuda() for tensor in tiny]
        model = network().cuda()
        batches = mh.Loader(data, 20, augment=AUGMENT, precision=torch.bfloat16)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                train_epoch(model, batches, optimizer=torch.optim.Adam(model.parameters(), fused=True))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("called a synchronizing CUDA operation" in str(each.message) for each in said))
    assert waits[0] == waits[1] > 0


class Fewer(mh.Loader):
    """All images first, then the first 30 of 100."""

    def __init__(self, data, batch_size, later=30):
        super().__init__(data, batch_size)
        self.later, self.epochs = later, 0

    def __len__(self):
        return -(-(self.later if self.epochs else len(self.labels)) // self.batch_size)

    def steps(self, epochs):
        return 5 + (epochs - 1) * -(-self.later // self.batch_size)

    def order(self):
        self.epochs += 1
        return super().order() if self.epochs == 1 else torch.arange(self.later)


def test_a_loader_that_chooses_its_images_has_epochs_of_its_own_length(network, split):
    """The schedule is asked for as many steps as there are, the batches of the second epoch are the chosen ones, and the
    choice is a part of the recipe."""
    runs = []
    for later in (30, 20):
        mh.set_seed(0)
        model, batches = network(), Fewer(split, 20, later)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=batches.steps(2))
        runs.append(mh.fit(model, batches, split, epochs=2, optimizer=optimizer, scheduler=mh.each_step(schedule)))
    assert [len(run.batch_loss) for run in runs] == [7, 6] and runs[0].id != runs[1].id
    seen = torch.cat([labels for _, labels in Fewer(split, 20)] + [labels for _, labels in batches])
    assert len(seen) == 120 and torch.equal(seen[100:], batches.labels[:20])
    assert "Fewer" in runs[0].card["recipe"]["training batches"]
