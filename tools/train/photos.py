#!/usr/bin/env python3
"""Write the calibration images for CIFAR-10 networks that are part of the repository.

    photos.py --output models/

Calibration needs images that resemble those of the task, but they need not come from its data set. These are
random squares of four of scikit-image's bundled photographs, reduced to CIFAR-10's size. Their licences:
astronaut and hubble_deep_field are NASA's, in the public domain; coffee and rocket are CC0. Writes
cifar10-calibration.npz: `images`, uint8 of shape (200, 32, 32, 3).
"""

import argparse
import pathlib

import numpy as np
import skimage.data
from PIL import Image

COUNT = 200
SIDE = 32


def squares(generator):
    """COUNT random squares of the photographs, SIDE pixels wide, half of them mirrored."""
    photographs = [
        Image.fromarray(photograph)
        for photograph in (
            skimage.data.astronaut(),
            skimage.data.coffee(),
            skimage.data.rocket(),
            skimage.data.hubble_deep_field(),
        )
    ]
    for index in range(COUNT):
        photograph = photographs[index % len(photographs)]
        side = int(generator.integers(2 * SIDE, min(photograph.size) + 1))
        left = int(generator.integers(photograph.width - side + 1))
        top = int(generator.integers(photograph.height - side + 1))
        square = photograph.crop((left, top, left + side, top + side))
        pixels = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        yield pixels[:, ::-1] if generator.integers(2) else pixels


def main():
    """Parse the command line and write the images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    images = np.stack(list(squares(np.random.default_rng(1))))
    np.savez_compressed(arguments.output / "cifar10-calibration.npz", images=images)
    print(f"{arguments.output / 'cifar10-calibration.npz'}: {images.shape} {images.dtype}")


if __name__ == "__main__":
    main()
