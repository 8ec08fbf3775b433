#!/usr/bin/env python3
"""Write the demo picture: the centre square of scikit-image's bundled cat, reduced.

    cat.py --output models/
    cat.py --output models/ --network models/cifar10-resnet8.safetensors

With a network, also prints how it classifies the picture at 32x32.
"""

import argparse
import pathlib

import numpy as np
import skimage.data
import torch
from PIL import Image

import cifar10_resnet8
from resnet import load

SIDE = 128


def picture():
    """The centre square of the photograph, SIDE pixels wide."""
    photograph = Image.fromarray(skimage.data.cat())
    side = min(photograph.size)
    left, top = (photograph.width - side) // 2, (photograph.height - side) // 2
    square = photograph.crop((left, top, left + side, top + side))
    return square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def recognise(path, network):
    """The three most probable labels, in percent, of the picture at 32x32."""
    image = Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.LANCZOS)
    model = cifar10_resnet8.network()
    model.load_state_dict(load(network))
    model.eval()
    with torch.no_grad():
        scores = model(cifar10_resnet8.normalise(torch.from_numpy(np.array(image))[None]))
    top = scores.softmax(1)[0].topk(3)
    return [
        f"{cifar10_resnet8.LABELS[index]} {100.0 * value:.2f} %"
        for index, value in zip(top.indices.tolist(), top.values.tolist())
    ]


def main():
    """Parse the command line and write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("models"))
    parser.add_argument("--network", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    path = arguments.output / "cat.png"
    picture().save(path, optimize=True)
    print(f"{path}, {path.stat().st_size:,} bytes")
    if arguments.network:
        print(", ".join(recognise(path, arguments.network)))


if __name__ == "__main__":
    main()
