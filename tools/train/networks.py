"""Small untrained networks for the importers' fixtures, in common coding styles."""

import torch
from torch import nn
from torch.nn import functional


class OptionABlock(nn.Module):
    """A basic block whose shortcut subsamples and pads with zero channels, as in the
    CIFAR ResNets of the original paper (its option A)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.padded = stride != 1 or inputs != outputs
        self.border = outputs // 4

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.padded:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.border, self.border))
        return functional.relu(y + x)


class OptionA(nn.Module):
    """CIFAR-style ResNet on 8x8 RGB: widths 4, 8, 16, option A shortcuts, pooling over the
    whole image by an average pool of its size, and a view instead of a flatten."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(OptionABlock(4, 4, 1))
        self.layer2 = nn.Sequential(OptionABlock(4, 8, 2), OptionABlock(8, 8, 1))
        self.layer3 = nn.Sequential(OptionABlock(8, 16, 2))
        self.linear = nn.Linear(16, 10)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = functional.avg_pool2d(x, x.size()[3])
        return self.linear(x.view(x.size(0), -1))


class Bottleneck(nn.Module):
    """Three convolutions, 1x1, 3x3 and 1x1, added to the block's input or its projection."""

    def __init__(self, inputs, width, stride=1, activation=nn.ReLU):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.inner = activation()
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.inner(self.bn1(self.conv1(x)))
        y = self.inner(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + shortcut)


class Bottlenecks(nn.Module):
    """A small ResNet-50 on 16x16 RGB: max-pooled stem, ReLU6 in the stem and in
    the identity block."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU6()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = nn.Sequential(Bottleneck(8, 4), Bottleneck(16, 4, activation=nn.ReLU6))
        self.layer2 = nn.Sequential(Bottleneck(16, 8, stride=2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(x, 1))


def separable(inputs, outputs, stride):
    """A depthwise and a pointwise convolution, each with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def depthwise():
    """A small MobileNet on 16x16 RGB that ends in an average pool, two dense layers
    on the flattened 2x2x16 and softmax."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        separable(8, 12, 1),
        separable(12, 16, 2),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 20),
        nn.ReLU(),
        nn.Linear(20, 10),
        nn.Softmax(dim=1),
    )


def keywords(filters=8, blocks=1):
    """MLPerf Tiny's DS-CNN; the original has 64 filters and 4 blocks. A 10x4 kernel is padded as
    in TensorFlow, and the pooling leaves out the last of 25 rows."""
    return nn.Sequential(
        nn.ZeroPad2d((1, 1, 4, 5)),
        nn.Conv2d(1, filters, (10, 4), 2, bias=False),
        nn.BatchNorm2d(filters),
        nn.ReLU(),
        *(separable(filters, filters, 1) for _ in range(blocks)),
        nn.AvgPool2d((24, 5)),
        nn.Flatten(),
        nn.Linear(filters, 12),
        nn.Softmax(dim=1),
    )


def autoencoder(inputs=40, width=16, narrow=4, depth=2):
    """MLPerf Tiny's autoencoder: 640, 128, 8 and 4 are the original's."""
    sizes = [inputs] + [width] * depth + [narrow] + [width] * depth
    layers = []
    for before, behind in zip(sizes, sizes[1:]):
        layers += [nn.Linear(before, behind), nn.BatchNorm1d(behind), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, inputs))


class InvertedResidual(nn.Module):
    """A MobileNetV2 block: expanded, depthwise, projected without an activation."""

    def __init__(self, channels, width):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU6(),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU6(),
            nn.Conv2d(width, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return x + self.conv(x)


def inverted():
    """A network of such blocks."""
    stem = [nn.Conv2d(3, 4, 3, 2, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU6()]
    blocks = [InvertedResidual(4, 8), InvertedResidual(4, 8)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


class Concat(nn.Module):
    """A DenseNet step: a convolution's output is concatenated to its input."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = functional.relu(self.conv1(x))
        x = torch.cat([x, functional.relu(self.conv2(x))], 1)
        return self.fc(x.mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM that reads the rows of a convolution."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.lstm = nn.LSTM(32, 8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = functional.relu(self.conv1(x))
        rows = x.permute(2, 0, 1, 3).reshape(8, 1, 32)
        return self.fc(self.lstm(rows)[0][-1])


class Plain(nn.Module):
    """Two convolutions (the second with `groups` groups), ReLU, global average pooling and a dense layer."""

    def __init__(self, groups=1):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, groups=groups)
        self.fc = nn.Linear(4, 10)

    def forward(self, x):
        x = functional.relu(self.conv1(x))
        x = functional.relu(self.conv2(x))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def randomise(model, shape, seed, gain=2.0):
    """Give an untrained network varied batch-norm parameters, statistics that fit its
    activations, and dense weights multiplied by `gain`, so that its outputs differ;
    leaves it in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like, low, high):
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    norms = [module for module in model.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    with torch.no_grad():
        for norm in norms:
            norm.weight.copy_(uniform(norm.weight, 0.6, 1.4))
            norm.bias.copy_(uniform(norm.bias, -0.3, 0.3))
            norm.momentum = None
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(gain)
        model.train()
        model(torch.rand((64, *shape[1:]), generator=generator))
        for norm in norms:
            norm.running_mean.add_(uniform(norm.running_mean, -0.2, 0.2))
            norm.running_var.mul_(uniform(norm.running_var, 0.7, 1.4))
            norm.momentum = 0.1
    return model.eval()
