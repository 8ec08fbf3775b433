"""A residual network with torchvision's tensor names, and its checkpoint files."""

import json
import pathlib

import torch
from safetensors import safe_open
from safetensors.torch import save as serialize
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to the block's input (or its projection), then ReLU."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + shortcut)


class ResNet(nn.Module):
    """Stem, stages `layer1`, `layer2`, ... of basic blocks, global average pooling, `fc`.

    `channels` is the width of the stem, `stages` a list of (width, blocks, stride), where
    the stride applies to the stage's first block.
    """

    def __init__(self, input_channels, channels, stages, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(input_channels, channels, 3, 1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.stages = len(stages)
        for index, (width, blocks, stride) in enumerate(stages, start=1):
            layer = nn.Sequential()
            for block in range(blocks):
                layer.append(BasicBlock(channels, width, stride if block == 0 else 1))
                channels = width
            self.add_module(f"layer{index}", layer)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        for index in range(1, self.stages + 1):
            x = getattr(self, f"layer{index}")(x)
        return self.fc(x.mean((2, 3)))


def parameter_groups(model, weight_decay):
    """Weight decay for convolution and dense weights, none for biases and batch norm."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return [
        {"params": weights, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


@torch.no_grad()
def update_average(average, model, decay):
    """Move the averaged state (weights and batch-norm statistics) towards the model's."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1.0 - decay)
        else:
            average[name].copy_(value)


def cast(state, dtype):
    """The state with its floating-point tensors as `dtype`, contiguous; counters unchanged."""
    return {
        name: (value.to(dtype) if value.is_floating_point() else value).contiguous()
        for name, value in state.items()
    }


def save(path, state, dtype, metadata):
    """Write a safetensors file whose floating-point tensors have type `dtype`."""
    written = serialize(cast(state, dtype), metadata)
    # The library writes the metadata in random order. Rewrite it, so that output is reproducible.
    end = 8 + int.from_bytes(written[:8], "little")
    header = json.loads(written[8:end])
    header["__metadata__"] = metadata
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + written[end:])


def load(path):
    """The tensors of a safetensors file, floating-point ones as f32."""
    with safe_open(path, "pt") as file:
        return cast({name: file.get_tensor(name) for name in file.keys()}, torch.float32)
