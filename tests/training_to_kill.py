"""Train a small network for six epochs: python training_to_kill.py CHECKPOINT|none WEIGHTS (see test_checkpoint)."""

import random
import sys
import time

import numpy as np
import torch
from torch import nn

import mnist_helpers as mh
from mnist_helpers.data import Split

checkpoint, weights = sys.argv[1:]
torch.set_num_threads(1)
mh.set_seed(0)
images = torch.randint(0, 256, (256, 1, 28, 28), dtype=torch.uint8)
split = Split(images, torch.randint(0, 10, (256,)), "MNIST", "train")
model = nn.Sequential(nn.Conv2d(1, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
                      nn.Linear(196, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
scheduler = mh.each_step(torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=6 * 16))
rotate = mh.Augment(mh.Rotation(15))


def augment(images, generator):
    time.sleep(0.02)  # so that the kill falls into an epoch
    return rotate(images.roll(random.randint(-2, 2), 3), generator) * np.random.uniform(0.8, 1)


run = mh.fit(model, mh.Loader(split, 16, augment=augment), split, epochs=6, optimizer=optimizer, scheduler=scheduler,
             checkpoint=None if checkpoint == "none" else checkpoint)
torch.save(run.model.state_dict(), weights)
