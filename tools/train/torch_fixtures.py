#!/usr/bin/env python3
"""Write the fixtures of PyTorch's checkpoint formats: networks saved by torch.save, with their answers.

    torch_fixtures.py --output tests/data/

Run fixtures.py first: the `tiny-*` files written here contain the network of its
`tiny-f32.safetensors`. The legacy format names storages by their addresses, so its files
differ in these names from run to run.
"""

import argparse
import pathlib
import warnings
from collections import OrderedDict

import numpy as np
import onnx
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

import networks
from fixtures import Folder, random_images, torchscript, unit
from resnet import ResNet, load


class Narrow(TorchvisionResNet):
    """torchvision's ResNet with 1/32 of its channels."""

    def __init__(self, block, layers, classes):
        super().__init__(block, layers)
        self.fc = nn.Linear(16 * block.expansion, classes)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        if self.conv1.out_channels == 64:
            self.inplanes = 2
            self.conv1 = nn.Conv2d(3, 2, 7, 2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(2)
        return super()._make_layer(block, planes // 32, blocks, stride, dilate)


def save(folder, name, content, note, **options):
    """Write a checkpoint by torch.save."""
    torch.save(content, folder.path / name, **options)
    folder.done(name, note)


def trained(model):
    """Optimizer and schedule of the model after a step, as training programs save them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [100, 150])
    model(torch.zeros(1, 3, 8, 8)).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer.step()
    schedule.step()
    model.load_state_dict(state)
    return {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}


def strided(state):
    """The same tensors as views: of one row, of a transposed matrix, channels last, every second element."""
    views = OrderedDict()
    row = torch.cat([torch.zeros(7), *(value.flatten() for value in state.values())])
    at = 7
    for name, value in state.items():
        part = row[at : at + value.numel()].view(value.shape)
        at += value.numel()
        if name == "fc.weight":
            part = value.t().contiguous().t()
        elif value.dim() == 4:
            part = value.contiguous(memory_format=torch.channels_last)
        elif name.endswith("running_mean"):
            part = torch.stack([value, -value], 1)[:, 0]
        assert torch.equal(part, value)
        views[name] = part
    return views


def tiny(folder):
    """The tiny network in both formats, as programs save it."""
    state = load(folder.path / "tiny-f32.safetensors")
    model = ResNet(3, 4, [(4, 1, 1)], 3)
    model.load_state_dict(state)
    model.eval()
    rest = {
        "epoch": 7,
        "best_acc": np.float64(0.5),
        "score": torch.tensor(91.5),
        "args": argparse.Namespace(lr=0.1, milestones=[100, 150]),
        "rng": torch.get_rng_state(),
        "type": torch.float16,
        "device": torch.device("cpu"),
        "classes": {"stone", "paper"},
        "best": None,
    }
    content = {**rest, **trained(model), "net": model.state_dict()}
    save(folder, "tiny.pt", content, "zip, optimizer, arguments, NumPy's numbers")
    parallel = nn.DataParallel(model).state_dict()
    content = {"best_prec1": 91.78, "state_dict": parallel}
    legacy = {"_use_new_zipfile_serialization": False}
    save(folder, "tiny.th", content, "legacy, DataParallel", **legacy)
    half = OrderedDict((name, value.half()) for name, value in state.items())
    save(folder, "tiny-f16.pt", half, "zip, f16, pickle protocol 4", pickle_protocol=4)
    floats = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    save(folder, "tiny-strided.pt", strided(floats), "zip, strides and offsets")
    double = OrderedDict((name, nn.Parameter(value.double())) for name, value in floats.items())
    save(folder, "tiny-f64.th", double, "legacy, f64, parameters", **legacy)
    brain = {"model": {"state_dict": {n: v.bfloat16() for n, v in floats.items()}}}
    save(folder, "tiny-bf16.pt", brain, "zip, bf16, two levels down")
    graph = torchscript(model, (1, 3, 8, 8), folded=False)
    onnx.save(graph, folder.path / "tiny.onnx")
    folder.done("tiny.onnx", "the same network")


def families(folder):
    """Networks that are recognized by their tensor names."""
    torch.manual_seed(3)
    shape = (1, 3, 8, 8)
    model = networks.randomise(networks.OptionA(), shape, 3)
    content = {"state_dict": nn.DataParallel(model).state_dict(), "best_prec1": 91.78}
    note = "legacy, option A"
    save(folder, "option-a.th", content, note, _use_new_zipfile_serialization=False)

    torch.manual_seed(9)
    shape = (1, 3, 32, 32)
    model = networks.randomise(Narrow(Bottleneck, [1, 2, 1, 1], 5), shape, 9)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half().float())
    images = random_images((32, 32, 3), 9)
    inputs = unit(images)
    with torch.no_grad():
        logits = model(torch.from_numpy(inputs)).numpy()
    save(folder, "torchvision.pt", model.half().state_dict(), "zip, torchvision's bottlenecks")
    folder.arrays("torchvision", images=images, input=inputs, logits=logits)


def refused(folder):
    """Files that torch writes and that are not weights."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3)).eval()
    save(folder, "whole-model.pt", model, "zip, a module")
    torch.jit.trace(model, torch.zeros(1, 1, 4, 4)).save(str(folder.path / "torchscript.pt"))
    folder.done("torchscript.pt", "TorchScript")


def main():
    """Parse the command line and write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("tests/data"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    folder = Folder(arguments.output)
    tiny(folder)
    families(folder)
    refused(folder)


if __name__ == "__main__":
    main()
