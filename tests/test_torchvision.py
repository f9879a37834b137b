"""torchvision both ways: its transforms and datasets in our loop, our augmentation in its pipelines."""

import numpy as np
import pytest
import torch
from PIL import Image
from small import in_a_sentence
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms, tv_tensors
from torchvision.transforms import v2

import mnist_helpers as mh

# As the exercise of twenty epochs under 20,000 parameters was published.
PUBLISHED = transforms.Compose([
    transforms.RandomApply([transforms.CenterCrop(22)], p=0.1),
    transforms.Resize((28, 28)),
    transforms.RandomRotation((-15., 15.), fill=0),
    transforms.ToTensor(),
    transforms.Normalize((0.1307,), (0.3081,)),
])
AUGMENT = mh.Augment(mh.Rotation(15), mh.Translation(0.1), mh.Brightness(0.3))


@pytest.fixture
def same_image(tiny):
    """The first image of the tiny set sixteen times, uint8, with its label."""
    return tiny[0][:1].repeat(16, 1, 1, 1), tiny[1][:1].repeat(16)


def inputs(data, augment, **options):
    return torch.cat([batch for batch, _ in mh.Loader(data, 8, augment=augment, shuffle=False, **options)])


def trained(data, val=None, channels=1, side=28, classes=10):
    model = nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, classes))
    return mh.fit(model, data, val, epochs=1, optimizer=torch.optim.SGD(model.parameters(), lr=0.01))


# ---------------------------------------------------------------- its transforms as our augmentation


@pytest.mark.parametrize("augment", [
    PUBLISHED, transforms.RandomRotation(15), transforms.RandomAffine(10, (0.1, 0.1)), v2.RandomRotation(15),
    v2.Compose([v2.ToImage(), v2.RandomAffine(10), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.1307], [0.3081])]),
    v2.Compose([v2.RandomAffine(10), v2.ToDtype(torch.float32, scale=True)]), v2.RandomErasing(p=1.0),
    nn.Sequential(v2.RandomRotation(15), v2.RandomErasing()), v2.ElasticTransform(20.0)],
    ids=["published", "v1 rotation", "v1 affine", "v2 rotation", "v2 with its own normalization", "v2 on tensors", "erasing",
         "nn.Sequential", "elastic"])
def test_its_transforms_draw_for_each_image_and_are_normalised_once(same_image, augment):
    torch.manual_seed(0)
    made = inputs(same_image, augment)
    assert made.shape == (16, 1, 28, 28) and made.dtype == torch.float32 and type(made) is torch.Tensor
    assert len({tuple(image.flatten().tolist()) for image in made}) > 8, "one draw for all"
    background, ink = -0.1307 / 0.3081, (1 - 0.1307) / 0.3081
    assert made.min() >= background - 1e-3 and made.max() <= ink + 1e-3 and made.max() > 1


@pytest.mark.parametrize("rotation", [transforms.RandomRotation(15), v2.RandomRotation(15)], ids=["v1", "v2"])
def test_a_batch_gets_one_draw_of_torchvision_and_as_many_as_images_of_ours(tiny, rotation):
    """The figures that the notebook on other code gives: 1 angle for 64 images, or 64."""
    batch = tiny[0][:1].repeat(64, 1, 1, 1)
    labels = tiny[1][:1].repeat(64)
    torch.manual_seed(0)
    assert len(rotation(batch).flatten(1).unique(dim=0)) == 1
    for augment in (mh.Augment(mh.Rotation(15)), rotation):
        made = inputs((batch.float() / 255, labels), augment)
        # torchvision turns to the nearest pixel, so that two angles may give the same picture.
        assert len(made.flatten(1).unique(dim=0)) > (32 if augment is rotation else 63)


def test_a_transform_that_draws_nothing_is_exactly_torchvisions(tiny):
    images, labels = tiny
    fixed = transforms.Compose([transforms.CenterCrop(22), transforms.Resize((28, 28)), transforms.ToTensor(),
                                transforms.Normalize((0.1307,), (0.3081,))])
    expected = torch.stack([fixed(Image.fromarray(image[0].numpy())) for image in images])
    assert torch.equal(inputs(tiny, fixed), expected)
    flipped = mh.normalize(images.flip(3))
    assert torch.allclose(inputs(tiny, v2.functional.hflip), flipped, atol=1e-6)  # a function of images
    assert torch.allclose(inputs(tiny, transforms.RandomHorizontalFlip(p=1)), flipped, atol=1e-6)
    crops = torch.stack([v2.CenterCrop(20)(image) for image in images])
    assert torch.allclose(inputs(tiny, v2.CenterCrop(20)), mh.normalize(crops), atol=1e-6)


def test_what_takes_pictures_alone_is_refused_floats_in_a_sentence(tiny):
    with pytest.raises(TypeError) as error:
        inputs((mh.normalize(tiny[0]), tiny[1]), PUBLISHED)
    assert in_a_sentence(error) and "integers" in str(error.value)


# ---------------------------------------------------------------- our augmentation in its pipelines


@pytest.mark.parametrize("form", [
    lambda image: image, lambda image: image / 255, tv_tensors.Image, lambda image: tv_tensors.Image(image / 255)])
def test_augment_takes_an_image_or_a_batch_of_any_kind(tiny, form):
    images = tiny[0][:8]
    expected = AUGMENT(images, torch.Generator().manual_seed(0))
    assert torch.equal(AUGMENT(form(images), torch.Generator().manual_seed(0)), expected)
    one = AUGMENT(form(images[0]), torch.Generator().manual_seed(0))
    assert one.shape == (1, 28, 28) and torch.equal(one, AUGMENT(images[:1], torch.Generator().manual_seed(0))[0])


def test_augment_is_a_part_of_a_compose_and_a_datasets_transform(tiny, mnist_folder):
    picture = Image.fromarray(tiny[0][0, 0].numpy())
    for compose, first in ((v2.Compose, v2.ToImage()), (transforms.Compose, transforms.ToTensor())):
        pipeline = compose([first, AUGMENT, v2.Normalize([0.1307], [0.3081])])
        torch.manual_seed(3)
        made = pipeline(picture)
        torch.manual_seed(3)
        assert torch.allclose(made, mh.normalize(AUGMENT(tiny[0][0])), atol=1e-6)
        dataset = datasets.MNIST(mnist_folder, transform=pipeline)
        batch, labels = next(iter(DataLoader(dataset, batch_size=4)))
        assert batch.shape == (4, 1, 28, 28) and batch.dtype == torch.float32 and labels.shape == (4,)
    # And v2's Compose, with ours in it, is an augmentation of our loader.
    assert inputs(tiny, v2.Compose([AUGMENT, v2.RandomErasing()])).shape == tiny[0].shape


def test_what_is_no_image_is_refused_in_a_sentence(tiny):
    image = tiny[0][0]
    for wrong in (lambda: AUGMENT(Image.fromarray(image[0].numpy())), lambda: AUGMENT(image.numpy()),
                  lambda: AUGMENT(image.long()), lambda: v2.Compose([AUGMENT])(image, 3),
                  lambda: v2.Compose([AUGMENT])((image, 3))):
        with pytest.raises(TypeError) as error:
            wrong()
        assert in_a_sentence(error)


# ---------------------------------------------------------------- its datasets, and their like


def write_idx(path, array):
    """An uncompressed file of MNIST's format: two zeros, the type, the number of sizes, the sizes, the numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.numpy().tobytes())


def stand_in(folder, tiny, names=("train-images-idx3-ubyte", "train-labels-idx1-ubyte"), first=0):
    """Files of MNIST's format with the tiny images, for training and for the test; labels count from ``first``."""
    for part in ("train", "t10k"):
        for name, array in zip(names, (tiny[0][:, 0], (tiny[1] + first).byte()), strict=True):
            write_idx(folder / name.replace("train", part), array)


@pytest.fixture
def mnist_folder(tmp_path, tiny):
    stand_in(tmp_path / "MNIST" / "raw", tiny)
    return tmp_path


@pytest.mark.parametrize("kind", [datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST])
def test_mnist_and_its_drop_ins_are_trained_on_by_the_same_lines(tmp_path, tiny, kind):
    stand_in(tmp_path / kind.__name__ / "raw", tiny)
    train, test = (kind(tmp_path, train=part) for part in (True, False))
    assert torch.equal(inputs(train, None), mh.normalize(tiny[0]))
    run = trained(train, val=test)
    assert mh.evaluate(run.model, test).total == 100
    assert trained(kind(tmp_path, transform=PUBLISHED)).history["train_loss"]
    with pytest.raises(ValueError) as error:
        mh.Loader(kind(tmp_path, transform=PUBLISHED))
    assert in_a_sentence(error) and "DataLoader" in str(error.value)


def test_emnists_labels_count_from_one(tmp_path, tiny):
    names = [f"emnist-letters-train-{rest}" for rest in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    for part in ("train", "test"):
        for name, array in zip(names, (tiny[0][:, 0], tiny[1].byte() + 1), strict=True):
            write_idx(tmp_path / "EMNIST" / "raw" / name.replace("train", part), array)
    letters = datasets.EMNIST(tmp_path, split="letters")
    letters.classes = letters.classes[:11]
    with pytest.raises(ValueError) as error:
        trained(letters)
    assert in_a_sentence(error) and "labels - 1" in str(error.value)
    assert trained((letters.data, letters.targets - 1)).history["train_loss"]


class Held:
    """What a dataset of torchvision has in memory, without its files."""

    transform = target_transform = transforms = None

    def __init__(self, data, **labels):
        self.data = data
        vars(self).update(labels)


Held.__module__ = "torchvision.datasets.stand_in"


def test_whatever_torchvision_holds_in_memory_is_taken(tiny):
    images, labels = tiny
    colour = images.repeat(1, 3, 1, 1)
    for data, expected in (
            (Held(images[:, 0, :16, :16].numpy(), targets=labels.tolist()), images[..., :16, :16]),  # USPS
            (Held(images[:, 0], targets=torch.stack([labels] * 8, 1)), images),  # QMNIST
            (Held(colour.permute(0, 2, 3, 1).numpy(), targets=labels.tolist()), colour),  # CIFAR
            (Held(colour.numpy(), labels=labels.numpy()), colour)):  # SVHN
        loader = mh.Loader(data, 32, shuffle=False)
        assert torch.equal(loader.images, expected) and torch.equal(loader.labels, labels)
        assert trained(data, channels=expected.shape[1], side=expected.shape[2]).history["train_loss"]


def test_the_csv_of_785_columns_is_read_in_two_lines(tmp_path, tiny):
    table = torch.cat([tiny[1][:, None], tiny[0].flatten(1)], dim=1).numpy()
    np.savetxt(tmp_path / "mnist_train.csv", table, fmt="%d", delimiter=",", comments="",
               header=",".join(["label", *(f"{row}x{column}" for row in range(28) for column in range(28))]))
    rows = np.loadtxt(tmp_path / "mnist_train.csv", delimiter=",", skiprows=1, dtype=np.uint8)
    data = rows[:, 1:].reshape(-1, 1, 28, 28), rows[:, 0]
    assert torch.equal(inputs(data, None), mh.normalize(tiny[0])) and trained(data).history["train_loss"]


def test_digits_of_ones_own_in_folders(tmp_path, tiny):
    for number, (image, label) in enumerate(zip(*tiny, strict=True)):
        (tmp_path / str(label.item())).mkdir(exist_ok=True)
        Image.fromarray(image[0].numpy()).save(tmp_path / str(label.item()) / f"{number}.png")
    grey = v2.Compose([v2.Grayscale(), v2.ToImage()])
    own = datasets.ImageFolder(tmp_path, transform=grey)
    assert mh.evaluate(trained(own).model, own).total == 100
    with pytest.raises(TypeError) as error:
        trained(datasets.ImageFolder(tmp_path))
    assert in_a_sentence(error) and "ToTensor" in str(error.value)


# ---------------------------------------------------------------- colour


def test_colours_go_through_summary_training_and_figures(tiny, capsys):
    colour = torch.cat([tiny[0], 255 - tiny[0], tiny[0] // 2], 1)
    split = mh.Split(colour, tiny[1], "colours")
    model = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.Flatten(), nn.Linear(4 * 36, 10))
    mh.summary(model)
    assert "Total params: 1,754" in capsys.readouterr().out  # 3 * 25 * 4 + 4 + 144 * 10 + 10
    run = mh.fit(model, mh.Loader(split, augment=AUGMENT), split, epochs=1, optimizer=torch.optim.SGD(model.parameters(), 0.01))
    assert "3 → 4" in " ".join(text.get_text() for text in mh.plots.network(model).axes[0].texts)
    for figure in (mh.plots.samples(split, 1), mh.plots.augmentation(split, lambda images, _: images / 255, 1)):
        for axis in filter(lambda axis: axis.images, figure.axes):
            drawn = np.asarray(axis.images[0].get_array())
            np.testing.assert_allclose(drawn, colour[0].permute(1, 2, 0).numpy() / 255, atol=1e-6)
    assert mh.plots.mistakes(mh.evaluate(run.model, split), 4).axes[0].images[0].get_array().shape == (28, 28, 3)
