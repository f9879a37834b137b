"""One epoch of the same network, twice: as the published exercises feed it, and as `mnist_helpers` does."""

import contextlib
import functools

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms
from tqdm import tqdm

import mnist_helpers as mh
from mnist_helpers import data
from mnist_helpers.course import notebooks

NORMALIZE = [transforms.ToTensor(), transforms.Normalize((data.MEAN,), (data.STD,))]

# name: (notebook, network, batch size, the published transforms, ours)
CASES = {
    "iteration 5": (
        "05_under_20k", "Under20K", 64,
        [transforms.RandomApply([transforms.CenterCrop(22)], p=0.1), transforms.Resize((28, 28)),
         transforms.RandomRotation((-15.0, 15.0), fill=0)],
        mh.Augment(mh.CenterCropResize(22, p=0.1), mh.Rotation(15))),
    "six convolutions": (
        "challenges/twenty_epochs", "SixConvolutions", 128,
        [transforms.RandomApply([transforms.CenterCrop(22)], p=0.1), transforms.Resize((28, 28)),
         transforms.RandomRotation(10), transforms.ColorJitter(brightness=0.2, contrast=0.2),
         transforms.RandomAffine(0, translate=(0.1, 0.1), scale=(0.9, 1.1))],
        mh.Augment(mh.CenterCropResize(22, p=0.1), mh.Rotation(10), mh.Brightness(0.2), mh.Contrast(0.2),
                   mh.Translation(0.1), mh.Scale(0.9, 1.1))),
}


def devices():
    """The names of the devices that speed is measured on: of the GPU where there is one. With an empty
    ``CUDA_VISIBLE_DEVICES`` in the environment there is none."""
    return ["cuda" if torch.cuda.is_available() else "cpu"]


def network(case, seed=0):
    """A fresh network of a case, as its notebook defines it."""
    name, class_name, *_ = CASES[case]
    recipe = notebooks.network(name)
    mh.set_seed(seed)
    return getattr(recipe, class_name)()


@functools.cache
def published_dataset(case, images):
    """The first images of the training split as torchvision gives them: a PIL image at a time, transformed when it is
    asked for."""
    *_, published, _ = CASES[case]
    full = datasets.MNIST(data.default_root(), train=True, transform=transforms.Compose([*published, *NORMALIZE]))
    held_out = data.stratified_mask(full.targets, data.VALIDATION_IMAGES)
    return Subset(full, (~held_out).nonzero().flatten()[:images].tolist())


def published_epoch(case, model, images, workers):
    """An epoch as the published loops are written: a DataLoader, loss and accuracy read after each batch."""
    loader = DataLoader(published_dataset(case, images), batch_size=CASES[case][2], shuffle=True, num_workers=workers)
    device = mh.device.device_of(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    correct, seen = 0, 0
    model.train()
    bar = tqdm(loader, disable=None, leave=False)
    for inputs, targets in bar:
        inputs, targets = inputs.to(device), targets.to(device)
        optimizer.zero_grad()
        logits = model(inputs)
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        optimizer.step()
        correct += logits.argmax(1).eq(targets).sum().item()
        seen += len(targets)
        bar.set_description(f"loss {loss.item():.4f}, accuracy {correct / seen:.2%}")


@functools.cache
def mnist():
    return mh.load_mnist(verbose=False)


def split(images, device="cpu"):
    """The first images of the training split and their labels, whole on a device, where our loop keeps them."""
    train = mnist().train
    return train.images[:images].to(device), train.labels[:images].to(device)


def our_epoch(case, model, split, precision=None, tuned=True):
    """The same epoch from one tensor: batches are gathered, augmented and trained on; nothing is read in between.
    ``tuned`` fuses Adam's step and gives the batch norms contiguous inputs where that is faster."""
    *_, batch_size, _, augment = CASES[case]
    batches = mh.Loader(split, batch_size, augment=augment, precision=precision)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=tuned or None)
    with mh.cpu.contiguous_norms(model) if tuned else contextlib.nullcontext():
        mh.train.train_epoch(model, batches, optimizer=optimizer)
