#!/usr/bin/env python3
"""Train a small residual network on scikit-learn's bundled handwritten digits.

1,797 gray images of 8x8 pixels, scaled from 0..16 to 0..255. The network has one
identity block of 8 channels, a projection block to 16 channels with stride 2 and an
identity block of 16 channels. Training takes a few minutes at most.

    digits.py --output models/
    digits.py --evaluate models/digits.safetensors

Writes the weights, the 360 test images and 200 training images for calibration.
"""

import argparse
import pathlib

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from resnet import ResNet, load, parameter_groups, save, update_average

EPOCHS = 60
BATCH = 64
PEAK_RATE = 0.1
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.05
AVERAGE_DECAY = 0.98
TEST_IMAGES = 360
CALIBRATION_IMAGES = 200
SPLIT_SEED = 0


def network():
    """The untrained network."""
    return ResNet(1, 8, [(8, 1, 1), (16, 2, 2)], 10)


def split():
    """(training images, labels), (test images, labels): uint8, images of (n, 8, 8, 1)."""
    digits = load_digits()
    images = np.round(digits.images * 255.0 / 16.0).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.uint8)
    parts = train_test_split(
        images, labels, test_size=TEST_IMAGES, stratify=labels, random_state=SPLIT_SEED
    )
    return (parts[0], parts[2]), (parts[1], parts[3])


def normalise(images):
    """uint8 NHWC to the network's input: pixel / 255 as float NCHW."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0


def augment(images, generator):
    """Rotate, scale and shift each image slightly (10 degrees, 10 %, 1 pixel), and add noise."""
    count = len(images)

    def random(span):
        return (torch.rand(count, generator=generator) * 2.0 - 1.0) * span

    angle, zoom = random(np.radians(10.0)), 1.0 + random(0.1)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1)
    rotation = rotation.reshape(count, 2, 2) * zoom[:, None, None]
    shift = torch.stack([random(2.0 / 8.0), random(2.0 / 8.0)], 1)[:, :, None]
    grid = functional.affine_grid(torch.cat([rotation, shift], 2), images.shape, False)
    images = functional.grid_sample(images, grid, align_corners=False)
    noise = torch.randn(images.shape, generator=generator) * 0.03
    return (images + noise).clamp(0.0, 1.0)


@torch.no_grad()
def accuracy(state, images, labels):
    """Accuracy in percent of the network with these tensors."""
    model = network()
    model.load_state_dict(state)
    model.eval()
    scores = model(normalise(images))
    return 100.0 * (scores.argmax(1).numpy() == labels).mean()


def train(images, labels, seed):
    """Train and return the averaged state."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = normalise(images), torch.from_numpy(labels).long()
    model = network()
    average = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(
        parameter_groups(model, WEIGHT_DECAY), lr=PEAK_RATE, momentum=0.9, nesterov=True
    )
    steps_per_epoch = len(inputs) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, EPOCHS * steps_per_epoch, pct_start=0.2, cycle_momentum=False
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    model.train()
    for epoch in range(EPOCHS):
        order = torch.randperm(len(inputs), generator=generator)
        total = 0.0
        for index in range(steps_per_epoch):
            batch = order[index * BATCH : (index + 1) * BATCH]
            loss = loss_of(model(augment(inputs[batch], generator)), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            update_average(average, model, AVERAGE_DECAY)
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1}/{EPOCHS}: loss {total / steps_per_epoch:.4f}", flush=True)
    return average


def main():
    """Parse the command line, then train or evaluate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("models"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--evaluate", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    (images, labels), test = split()
    if arguments.evaluate:
        print(f"{arguments.evaluate}: test {accuracy(load(arguments.evaluate), *test):.2f} %")
        return
    state = train(images, labels, arguments.seed)

    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "digits.safetensors"
    metadata = {
        "mean": "0.0",
        "std": "1.0",
        "labels": ",".join("0123456789"),
        "input": "8,8,1",
    }
    save(path, state, torch.float16, metadata)
    np.savez_compressed(arguments.output / "digits-test.npz", images=test[0], labels=test[1])
    np.savez_compressed(
        arguments.output / "digits-calibration.npz",
        images=images[:CALIBRATION_IMAGES],
        labels=labels[:CALIBRATION_IMAGES],
    )
    print(f"f32: test {accuracy(state, *test):.2f} %")
    print(f"f16: test {accuracy(load(path), *test):.2f} % ({path}, {path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
