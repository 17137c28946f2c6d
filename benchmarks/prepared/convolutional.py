"""A small residual network, and EfficientNet-Lite0 with its ImageNet weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import pad, relu6

from benchmarks.prepared.packages import EFFICIENTNET_LITE0, unpacked
from benchmarks.prepared.transformer import perturb_vectors


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias, then batch normalisation."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, which is projected when the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(inputs, outputs, 3, stride)
        self.conv2 = conv_bn(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))


class SmallResNet(nn.Module):
    """A stem and three residual blocks: 3x32x32 images, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16, 3)
        self.blocks = nn.Sequential(
            ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2)
        )
        self.classifier = nn.Linear(64, 10)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        features = self.blocks(torch.relu(self.stem(pixel_values)))
        return self.classifier(features.mean(dim=(2, 3)))


def small_resnet() -> nn.Module:
    """The seeded network with batch statistics that are not 0 and 1, in evaluation mode."""
    torch.manual_seed(0)
    model = SmallResNet()
    perturb_vectors(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


class SameConv(nn.Conv2d):
    """TensorFlow's SAME padding for even sizes: the odd pixel goes to the right and bottom."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        extra = self.kernel_size[0] - self.stride[0]
        before, after = extra // 2, extra - extra // 2
        return super().forward(pad(x, (before, after, before, after)))


class InvertedResidual(nn.Module):
    """Expand, convolve depthwise, project; module names are those of the checkpoint."""

    def __init__(self, kernel: int, stride: int, expand: int, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.expands = expand != 1
        self.residual = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._depthwise_conv = SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """3x224x224 images, scaled as (pixel - 127) / 128, to the 1000 classes of ImageNet."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self._blocks = nn.Sequential(*(InvertedResidual(*row) for row in _efficientnet_blocks()))
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        x = self._blocks(relu6(self._bn0(self._conv_stem(pixel_values))))
        x = relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean(dim=(2, 3)))


def efficientnet_lite0(cache: Path) -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in evaluation mode."""
    member = next(iter(EFFICIENTNET_LITE0.digests))
    weights = torch.load(unpacked(EFFICIENTNET_LITE0, cache) / member, weights_only=True)
    model = EfficientNetLite0()
    model.load_state_dict(weights)
    return model.eval()


def _efficientnet_blocks() -> Iterator[tuple[int, int, int, int, int]]:
    """(kernel, stride, expansion, inputs, outputs) of the sixteen blocks of EfficientNet-Lite0."""
    inputs = 32
    for repeats, kernel, stride, expand, outputs in (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ):
        for repeat in range(repeats):
            yield kernel, stride if repeat == 0 else 1, expand, inputs, outputs
            inputs = outputs
