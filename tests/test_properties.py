"""What holds for every input: augmentation, intervals, records, addresses, drawings, damage. Hypothesis looks for others."""

import json
import math

import pytest
import torch

hypothesis = pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import mnist_helpers as mh  # noqa: E402
from mnist_helpers import checkpoint  # noqa: E402
from mnist_helpers.course import draw, publish, records  # noqa: E402

few = settings(max_examples=40, deadline=None, derandomize=True, database=None)
plain = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                     lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4), max_leaves=12)
TRANSFORMS = [mh.Rotation(15), mh.Translation(0.2), mh.Scale(0.8, 1.2), mh.Elastic(20, 4), mh.CenterCropResize(22, 0.5),
              mh.Brightness(0.2), mh.Contrast(0.2)]


@few
@given(st.integers(0, 3), st.sampled_from([1, 3]), st.integers(2, 30), st.sampled_from([torch.uint8, torch.float32, torch.float64]),
       st.lists(st.sampled_from(TRANSFORMS), min_size=1, max_size=3), st.integers(0, 2**32))
def test_augmented_images_have_their_shape_stay_in_range_and_repeat(count, channels, side, dtype, transforms, seed):
    images = torch.randint(0, 256, (count, channels, side, side), generator=torch.Generator().manual_seed(seed)).to(dtype)
    images = images if dtype == torch.uint8 else images / 255
    before = images.clone()
    first, second = (mh.Augment(*transforms)(images, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert first.shape == images.shape and first.is_floating_point() and torch.equal(first, second)
    assert torch.equal(images, before) and first.isfinite().all()
    assert not first.numel() or (first.min() >= -1e-6 and first.max() <= 1 + 1e-6)


def a_record(**changes):
    return {"id": "x-s0-0", "notebook": "x", "model": "x", "parameters": 8, "seed": 0, "epochs": 1, "profile": "full",
            "dataset": "mnist", "train_images": 100, "val_accuracy": 0.5, "test_accuracy": 0.9, "test_loss": 0.1,
            "test_correct": 90, "test_total": 100, "seconds": 1.0, "card": {}, "val_curve": [0.5], "trace": [1.0],
            "mistakes": {str(image): 0 for image in range(10)}} | changes


@few
@given(st.text(max_size=9), st.dictionaries(st.text(max_size=3), st.text(max_size=9), max_size=3), st.floats(0, 1e9))
def test_a_record_is_read_back_as_it_was_written(tmp_path_factory, notebook, card, seconds):
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    made = a_record(notebook=notebook, card=card, seconds=seconds)
    records.append(made, path)
    assert records.read(path) == [made]


@few
@given(st.sampled_from(sorted(records.KEYS)), plain)
def test_whatever_stands_in_a_record_is_refused_in_a_sentence_or_can_be_one(key, value):
    try:
        records.check(a_record(**{key: value}))
    except ValueError:
        return
    assert json.loads(json.dumps(a_record(**{key: value}), allow_nan=False))


@few
@given(st.text("abAB09-_./:@ \u00e9", max_size=30) | st.from_regex(r"[\w.-]{1,5}/[\w.-]{1,9}", fullmatch=True))
def test_an_address_is_owner_and_name_or_refused(text):
    try:
        owner, name = publish.parsed(text).split("/")
    except ValueError:
        return
    assert owner.isascii() and owner.replace("-", "").isalnum() and owner.strip("-") == owner and "--" not in owner
    assert name.isascii() and name not in (".", "..") and name[0] != "-" and not name.lower().endswith(".git")
    assert publish.parsed(f"https://github.com/{owner}/{name}.git") == f"{owner}/{name}"


@few
@given(st.lists(st.lists(st.tuples(st.floats(), st.floats()) | plain, max_size=6) | plain, max_size=4))
def test_a_drawing_is_an_image_or_nothing(strokes):
    image = draw.prepare(strokes)
    assert image is None or (image.shape == (1, 1, 28, 28) and image.max() == 255)


@few
@given(plain, plain)
def test_a_digest_tells_contents_apart(one, other):
    same = repr(one) == repr(other)
    assert (checkpoint.digest(one) == checkpoint.digest(other)) == same or math.nan in (one, other)
    assert checkpoint.digest([one, other]) == checkpoint.digest([one, other])
