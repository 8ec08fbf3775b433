#!/usr/bin/env python3
"""Train MLPerf Tiny's ResNet-8 topology on CIFAR-10.

Three stages of 16, 32 and 64 channels with one block each, projection shortcuts,
symmetric padding, global average pooling, 77,360 weights. SGD with Nesterov momentum,
one-cycle learning rate, label smoothing, random crops and flips. The result is an
exponential moving average of the weights.

    cifar10_resnet8.py --data DIR --output models/
    cifar10_resnet8.py --data DIR --evaluate models/cifar10-resnet8.safetensors

DIR contains train.bin and test.bin in the original CIFAR-10 binary layout: for each image
a label byte and 3,072 bytes in channel, row, column order. An interrupted run continues
from its last checkpoint when it is started again with the same arguments.
"""

import argparse
import pathlib
import time

import numpy as np
import torch
from torch import nn

from resnet import ResNet, load, parameter_groups, save, update_average

LABELS = "airplane automobile bird cat deer dog frog horse ship truck".split()
MEAN = [0.4914, 0.4822, 0.4465]
STD = [0.2470, 0.2435, 0.2616]

BATCH = 256
PEAK_RATE = 0.5
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.05
PADDING = 4
AVERAGE_DECAY = 0.98
AVERAGE_STEPS = 5
CHECKPOINT_EPOCHS = 2
TEST_EPOCHS = 5


def network():
    """The untrained network."""
    return ResNet(3, 16, [(16, 1, 1), (32, 1, 2), (64, 1, 2)], len(LABELS))


def read(path):
    """Images as uint8 of shape (n, 32, 32, 3) and labels as int64."""
    records = torch.from_numpy(np.fromfile(path, np.uint8).reshape(-1, 3073))
    images = records[:, 1:].reshape(-1, 3, 32, 32).permute(0, 2, 3, 1).contiguous()
    return images, records[:, 0].long()


def normalise(images):
    """uint8 NHWC to the network's input: float NCHW, in channels-last memory order."""
    mean = torch.tensor(MEAN) * 255.0
    std = torch.tensor(STD) * 255.0
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)


def padded(images):
    """The images with a border of the mean colour, which normalization maps to 0."""
    count, height, width, _ = images.shape
    border = (torch.tensor(MEAN) * 255.0).round().to(torch.uint8)
    canvas = border.expand(count, height + 2 * PADDING, width + 2 * PADDING, 3).contiguous()
    canvas[:, PADDING : PADDING + height, PADDING : PADDING + width] = images
    return canvas


def augment(images, generator):
    """Random 32x32 crops, one offset for each eighth of the batch, and random flips."""
    crops = []
    for part in images.chunk(8):
        row, column = torch.randint(0, 2 * PADDING + 1, (2,), generator=generator).tolist()
        crops.append(part[:, row : row + 32, column : column + 32])
    images = torch.cat(crops)
    flip = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(2), images)


def learning_rate(step, steps):
    """One cycle: linear from 0 to the peak over the first fifth, then linear to 0."""
    warm = 0.2 * steps
    return PEAK_RATE * min((step + 1) / warm, (steps - step) / (steps - warm))


@torch.no_grad()
def accuracy(state, images, labels):
    """Test accuracy in percent of the network with these tensors."""
    model = network().to(memory_format=torch.channels_last)
    model.load_state_dict(state)
    model.eval()
    right = 0
    for start in range(0, len(images), 1000):
        scores = model(normalise(images[start : start + 1000]))
        right += (scores.argmax(1) == labels[start : start + 1000]).sum().item()
    return 100.0 * right / len(images)


def train(data, epochs, seed, checkpoint):
    """Train and return the averaged state."""
    images, labels = read(data / "train.bin")
    test_images, test_labels = read(data / "test.bin")
    images = padded(images)
    steps_per_epoch = len(images) // BATCH
    steps = epochs * steps_per_epoch

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = network().to(memory_format=torch.channels_last)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(
        parameter_groups(model, WEIGHT_DECAY), lr=PEAK_RATE, momentum=0.9, nesterov=True
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)

    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        if (saved["epochs"], saved["seed"]) != (epochs, seed):
            raise SystemExit(f"{checkpoint} belongs to a run with other arguments; remove it")
        first, average = saved["epoch"], saved["average"]
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        generator.set_state(saved["generator"])
        print(f"continuing after epoch {first}", flush=True)

    for epoch in range(first, epochs):
        started = time.monotonic()
        model.train()
        total = 0.0
        order = torch.randperm(len(images), generator=generator)
        for index in range(steps_per_epoch):
            step = epoch * steps_per_epoch + index
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps)
            batch = order[index * BATCH : (index + 1) * BATCH]
            loss = loss_of(model(normalise(augment(images[batch], generator))), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            if (step + 1) % AVERAGE_STEPS == 0:
                update_average(average, model, AVERAGE_DECAY)
        line = f"epoch {epoch + 1}/{epochs}: {time.monotonic() - started:.0f} s"
        line += f", loss {total / steps_per_epoch:.4f}"
        if (epoch + 1) % TEST_EPOCHS == 0 or epoch + 1 == epochs:
            line += f", test {accuracy(average, test_images, test_labels):.2f} %"
        print(line, flush=True)
        if (epoch + 1) % CHECKPOINT_EPOCHS == 0 or epoch + 1 == epochs:
            partial = checkpoint.with_suffix(".partial")
            torch.save(
                {
                    "epochs": epochs,
                    "seed": seed,
                    "epoch": epoch + 1,
                    "model": model.state_dict(),
                    "average": average,
                    "optimizer": optimizer.state_dict(),
                    "generator": generator.get_state(),
                },
                partial,
            )
            partial.replace(checkpoint)
    return average


def main():
    """Parse the command line, then train or evaluate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("models"))
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--checkpoint",
        type=pathlib.Path,
        help="where an interrupted run continues (default: in DIR)",
    )
    parser.add_argument("--evaluate", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    test = read(arguments.data / "test.bin")
    if arguments.evaluate:
        print(f"{arguments.evaluate}: test {accuracy(load(arguments.evaluate), *test):.2f} %")
        return
    checkpoint = arguments.checkpoint or arguments.data / "cifar10-resnet8.checkpoint"
    state = train(arguments.data, arguments.epochs, arguments.seed, checkpoint)
    path = arguments.output / "cifar10-resnet8.safetensors"
    arguments.output.mkdir(parents=True, exist_ok=True)
    metadata = {
        "mean": ",".join(str(value) for value in MEAN),
        "std": ",".join(str(value) for value in STD),
        "labels": ",".join(LABELS),
        "input": "32,32,3",
    }
    save(path, state, torch.float16, metadata)
    print(f"f32: test {accuracy(state, *test):.2f} %")
    print(f"f16: test {accuracy(load(path), *test):.2f} % ({path}, {path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
