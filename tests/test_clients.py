"""Our loader in the loops of other libraries: an epoch gives the weights of `fit`, to the bit.

The libraries are optional: ``pip install skorch accelerate pytorch-lightning``.
"""

import pytest
import torch
import torch.nn.functional as F
from small import AUGMENT, same

import mnist_helpers as mh
from mnist_helpers import device


@pytest.fixture(autouse=True)
def same_threads(monkeypatch):
    """`fit` takes one, and the other libraries all: sums are rounded otherwise."""
    monkeypatch.setattr(device, "_threads", torch.get_num_threads())


@pytest.fixture
def loader(tiny):
    """Makes a loader that yields the same batches to whoever asks."""
    split = mh.Split(*tiny, "MNIST", "train")

    def make():
        return mh.Loader(split, 32, augment=AUGMENT, generator=torch.Generator().manual_seed(1))
    return make


def ours(network, loader):
    model = network()
    torch.manual_seed(2)  # which dropout draws from
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return mh.fit(model, loader(), None, epochs=1, optimizer=optimizer).model


def test_an_epoch_under_skorch(network, loader):
    skorch = pytest.importorskip("skorch", reason="optional: pip install skorch")
    batches, model = loader(), network()
    net = skorch.NeuralNet(
        model, torch.nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=1e-2, max_epochs=1, batch_size=32,
        train_split=None, verbose=0, iterator_train=mh.Loader, iterator_train__augment=AUGMENT,
        iterator_train__shuffle=True, iterator_train__generator=batches.generator).initialize()
    torch.manual_seed(2)
    net.partial_fit(batches.dataset, None)
    assert net.module_ is model and same(model, ours(network, loader)) and not same(model, network())


def test_an_epoch_under_accelerate(network, loader):
    accelerate = pytest.importorskip("accelerate", reason="optional: pip install accelerate")
    model = network()
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer, batches = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=1e-2), loader())
    torch.manual_seed(2)
    model.train()
    for inputs, targets in batches:
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(model(inputs), targets))
        optimizer.step()
    assert same(accelerator.unwrap_model(model), ours(network, loader)) and not same(model, network())


@pytest.mark.filterwarnings("ignore")  # its own: of workers that we have none of, and of what it deprecates
def test_an_epoch_under_lightning(network, loader, tmp_path):
    lightning = pytest.importorskip("pytorch_lightning", reason="optional: pip install pytorch-lightning")

    class Lit(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = network()

        def training_step(self, batch, index):
            inputs, targets = batch
            return F.cross_entropy(self.model(inputs), targets)

        def configure_optimizers(self):
            return torch.optim.Adam(self.model.parameters(), lr=1e-2)

    lit = Lit()
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)
    torch.manual_seed(2)
    trainer.fit(lit, loader())
    assert trainer.global_step == 4
    assert same(lit.model, ours(network, loader)) and not same(lit.model, network())
