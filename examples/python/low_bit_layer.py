"""A torch module whose weights have a few bits: trained through stochastic rounding, stored as packed codes.

    python examples/python/low_bit_layer.py

``fake_quantize`` rounds on the way forward and passes the gradient straight through on the way back. It is a
pure function of its key: the key of a step is folded from one seed, so every run gives the same bits.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

import torchext
from torchext.random import Purpose, fold_in, key_from_seed


class LowBitLinear(nn.Linear):
    """A linear layer that is used with weights of ``bits`` bits and learns in float32.

    Args:
        in_features, out_features: as for ``nn.Linear``.
        bits: 2 to 8; one scale per row of the weight.
        number: tells the layers of a model apart in the random stream.
    """

    def __init__(self, in_features: int, out_features: int, bits: int, number: int) -> None:
        super().__init__(in_features, out_features)
        self.bits, self.number = bits, number
        self.key = key_from_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        """Stochastic rounding with the key of the step while training, nearest rounding afterwards."""
        if self.training:
            weight = torchext.fake_quantize(self.weight, self.bits, dim=0, key=self.key)
        else:
            weight = torchext.fake_quantize(self.weight, self.bits, dim=0, rounding="nearest")
        return linear(x, weight, self.bias)

    def start_step(self, step: int, seed: int = 0) -> None:
        """Draw anew, independently of other steps and layers."""
        self.key = fold_in(fold_in(fold_in(key_from_seed(seed), Purpose.MODEL), step), self.number)

    def packed(self) -> torchext.QuantizedTensor:
        """The weights as they are deployed: codes of ``bits`` bits and one scale per row."""
        return torchext.quantize(self.weight.detach(), self.bits, dim=0, rounding="nearest")


def train(bits: int, steps: int) -> tuple[float, int]:
    """Fit a small network to images of digits; returns (accuracy on unseen images, bytes of its weights)."""
    X, y = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
    X = X.float() / 16
    torch.manual_seed(0)
    shuffled = torch.randperm(len(X))
    seen, unseen = shuffled[300:], shuffled[:300]
    model = nn.Sequential(LowBitLinear(64, 64, bits, 0), nn.ReLU(), LowBitLinear(64, 10, bits, 1))
    layers = [layer for layer in model if isinstance(layer, LowBitLinear)]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        for layer in layers:
            layer.start_step(step)
        batch = seen[torch.randint(len(seen), (128,))]
        optimizer.zero_grad()
        cross_entropy(model(X[batch]), y[batch]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(X[unseen]).argmax(1) == y[unseen]).double().mean().item()
    return accuracy, sum(layer.packed().codes.nbytes for layer in layers)


def main(argv: list[str] | None = None) -> dict[int, tuple[float, int]]:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--bits", type=int, nargs="+", default=[8, 4, 3, 2], help="2 (three levels) to 8"
    )
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args(argv)
    found = {}
    for bits in given.bits:
        found[bits] = accuracy, size = train(bits, given.steps)
        print(f"{bits} bits: accuracy {accuracy:.3f} on unseen digits, weights in {size:,} bytes")
    return found


if __name__ == "__main__":
    main()
