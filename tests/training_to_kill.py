"""Train a small network for six epochs: python training_to_kill.py CHECKPOINT|none WEIGHTS (see test_training)."""

import sys
import time

import torch
from torch import nn

import mnist_helpers as mh

checkpoint, weights = sys.argv[1:]
torch.set_num_threads(1)
mh.set_seed(0)
images = torch.randint(0, 256, (256, 1, 28, 28), dtype=torch.uint8)
data = images, torch.randint(0, 10, (256,))
model = nn.Sequential(nn.Conv2d(1, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
                      nn.Linear(196, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=6 * 16)


class Slowly(mh.Augment):
    def __call__(self, images, generator=None):
        time.sleep(0.02)  # so that the kill falls into an epoch
        return super().__call__(images, generator)


mh.fit(model, data, data, epochs=6, optimizer=optimizer, scheduler=scheduler, scheduler_every="step", batch_size=16,
       augment=Slowly(mh.Rotation(15)), checkpoint=None if checkpoint == "none" else checkpoint, progress=False)
torch.save(model.state_dict(), weights)
