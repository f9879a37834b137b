"""What the tests of training share: a short call of `fit`, and whether two networks are equal to the bit."""

import torch

import mnist_helpers as mh
from mnist_helpers.data import Split

AUGMENT = mh.Augment(mh.Rotation(10), mh.Translation(0.1))
LOADING = ("augment", "normalize", "batch_size", "drop_last", "precision", "shuffle")


def train(model, data, *, val="the same", epochs=3, scheduler=None, lr=1e-2, after_step=None, **options):
    """`mh.fit` with Adam, on a `Split` in batches of 32; ``scheduler`` makes one for the optimiser, and ``after_step``
    is called with the number of each step that it took."""
    loading = {"batch_size": 32} | {name: options.pop(name) for name in LOADING if name in options}
    optimizer, steps = torch.optim.Adam(model.parameters(), lr=lr), []
    if after_step:
        optimizer.register_step_post_hook(lambda *_: steps.append(1) or after_step(len(steps)))
    return mh.fit(model, mh.Loader(data, **loading) if isinstance(data, Split) else data,
                  data if isinstance(val, str) else val, epochs=epochs, optimizer=optimizer,
                  scheduler=scheduler(optimizer) if scheduler else None, **options)


def same(a, b):
    """Whether two networks have the same weights and statistics, to the bit."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def stop_at(number, exception=KeyboardInterrupt):
    """An ``after_step`` that raises at a step."""
    def stop(step):
        if step == number:
            raise exception
    return stop


def in_a_sentence(error):
    """Whether what pytest caught explains itself shortly, in words of ours and not of Python's insides."""
    text = str(error.value)
    return 15 < len(text) < 500 and "\n" not in text and "unpack" not in text and "object has no" not in text
