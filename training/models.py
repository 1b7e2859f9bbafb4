"""Networks of the experiments."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut; a 1x1 one where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(
                _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CompactResNet(nn.Module):
    """A ResNet with one basic block at ``width``, 2 ``width`` and 4 ``width`` channels.

    78,170 parameters at width 16; pictures of any size from 4 x 4, three channels.
    """

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(
            BasicBlock(width, width, 1),
            BasicBlock(width, 2 * width, 2),
            BasicBlock(2 * width, 4 * width, 2),
        )
        self.end = nn.Sequential(nn.BatchNorm2d(4 * width), nn.LeakyReLU(0.1))
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (n, 3, h, w) to scores (n, classes)."""
        scores: Tensor = self.head(self.end(self.blocks(self.stem(x))).mean((2, 3)))
        return scores


class CharLSTM(nn.Module):
    """Embedding, LSTM layers from a zero state, and a linear layer to the next character.

    280,897 parameters for 65 characters at the defaults.
    """

    def __init__(
        self, characters: int, embedding: int = 128, hidden: int = 128, layers: int = 2
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, characters)

    def forward(self, x: Tensor) -> Tensor:
        """Character numbers (n, length) to scores (n, length, characters)."""
        scores: Tensor = self.head(self.lstm(self.embedding(x))[0])
        return scores
