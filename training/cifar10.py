"""``python -m training.cifar10``: a compact ResNet on CIFAR-10 by SGD, SVRG and their low-precision kin.

All methods start from the same weights and see the same batches. SVRG, LP-SVRG and HALP evaluate two
gradients a step and a full one per centre, so an epoch costs them three or four of SGD's; the column
``gradient_epochs`` counts. Losses and accuracies are with batch-norm statistics over the training pictures at
the present weights, for every method. Weights of every layer, batch norm included, are low-precision.

    python -m training.cifar10 --preset cpu --seeds 0 1 2 --out runs/cifar10 --plot cifar10.png
    timeout -s TERM 580 python -m training.cifar10 --out runs/cifar10 --resume     # in pieces
    torchrun --nproc-per-node 2 -m training.cifar10 --methods sgd halp-8           # several processes
    python -m training.cifar10 --preset full --device cuda

``--preset cpu`` is a REDUCED problem: a narrow net, 10,000 pictures of half the size, 5 epochs.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from training import data
from training.common import comparison
from training.common.deep import add_training, deep_config, report
from training.common.methods import Method, Settings
from training.common.runs import Row
from training.common.trainer import Batch, Schedule, Trainer, batch_norm_over, measure
from training.models import CompactResNet

METHODS = ("sgd", "momentum", "svrg", "lp-sgd-8", "lp-svrg-8", "halp-8", "halp-4")
#: Per-channel mean and standard deviation of the training pictures, in [0, 1].
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Pictures:
    """Pictures on a device, normalised; as augmentation a shift by an eighth and a mirror image.

    They come in the order of their classes and are mixed once: the batches of a full gradient must look
    like those of the steps, or batch norm takes the classes out of it.
    """

    def __init__(self, part: data.Labelled, side: int, device: torch.device) -> None:
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        mixed = torch.randperm(len(part.y), generator=torch.Generator().manual_seed(0))
        x = (part.x[mixed].float() / 255 - mean) / std
        if side < x.shape[-1]:
            x = nn.functional.adaptive_avg_pool2d(x, side)
        self.x, self.y, self.shift = x.to(device), part.y[mixed].to(device), side // 8

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, rows: Tensor, noise: torch.Generator | None) -> Batch:
        """Some pictures and their classes."""
        rows = rows.to(self.x.device)
        x, y = self.x[rows], self.y[rows]
        return (x if noise is None else self._augmented(x, noise)), y

    def _augmented(self, x: Tensor, noise: torch.Generator) -> Tensor:
        n, side, s = len(x), x.shape[-1], self.shift
        by = torch.randint(0, 2 * s + 1, (2, n, 1), generator=noise).to(x.device)
        mirror = torch.randint(0, 2, (n, 1), generator=noise).bool().to(x.device)
        line = torch.arange(side, device=x.device)
        down, right = by[0] + line, by[1] + torch.where(mirror, side - 1 - line, line)
        padded = nn.functional.pad(x, (s, s, s, s)).permute(0, 2, 3, 1)
        picked = padded[
            torch.arange(n, device=x.device)[:, None, None], down[:, :, None], right[:, None]
        ]
        return picked.permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Preset:
    """Size of the net, the pictures and the training."""

    width: int
    side: int
    train: int
    test: int
    augment: bool
    schedule: Schedule
    settings: dict[str, Settings]


def _settings(lr: float) -> dict[str, Settings]:
    """Chosen by a few short runs on the CPU preset; the full one is not tuned."""
    base = Settings(lr=lr, weight_decay=2e-4, headroom=2.0, mu=1.0, svrg_coef=0.5)
    return {
        "default": base,
        "momentum": replace(base, lr=lr / 10),
        "halp-4": replace(base, mu=6.0),
    }


PRESETS = {
    "cpu": Preset(
        8, 16, 10_000, 4_000, False,
        Schedule(epochs=5, batch=25, centre_every=0.4, decay_at=(4,)), _settings(0.3),
    ),
    "full": Preset(
        16, 32, 50_000, 10_000, True, Schedule(epochs=150, batch=128, centre_every=0.5),
        _settings(0.1),
    ),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> comparison.Results:
    """Trains, prints the table and draws."""
    p = comparison.parser(__doc__ or "", METHODS, "runs/cifar10")
    comparison.add_data(p, cache=True)
    add_training(p, PRESETS)
    p.add_argument("--width", type=int, metavar="C", help="channels of the first block")
    p.add_argument("--side", type=int, metavar="PIXELS", help="pictures are averaged down to it")
    p.add_argument("--train", type=int, metavar="N", help="first pictures of every class, N in all")
    p.add_argument("--test", type=int, metavar="N", help="likewise")
    p.add_argument("--augment", action=argparse.BooleanOptionalAction, default=None,
                   help="shift and mirror the training pictures")  # fmt: skip
    options = p.parse_args(arguments)
    preset = PRESETS[options.preset]
    given = {k: getattr(options, k) for k in ("width", "side", "train", "test", "augment")}
    preset = replace(preset, **{k: v for k, v in given.items() if v is not None})
    with comparison.one_sentence("training.cifar10"), comparison.devices(options.device) as device:
        pictures = data.cifar10(data.data_root(options.data), options.cache)
        train = Pictures(
            data.first_of_each_class(pictures.train, preset.train), preset.side, device
        )
        test = Pictures(data.first_of_each_class(pictures.test, preset.test), preset.side, device)
        print(
            f"CIFAR-10, {pictures.source}{' (lossy)' if pictures.source == 'JPEG' else ''}",
            flush=True,
        )

        def evaluate(model: nn.Module) -> Row:
            with batch_norm_over(model, train, 500):
                train_loss, train_accuracy = measure(model, train, 500)
                loss, accuracy = measure(model, test, 500)
            return {
                "train_loss": train_loss, "train_accuracy": train_accuracy,
                "validation_loss": loss, "validation_accuracy": accuracy,
            }  # fmt: skip

        own = asdict(preset) | {"source": pictures.source}
        methods = [Method.parse(name) for name in options.methods]
        resolved = deep_config(options, own, preset.schedule, preset.settings)

        def make(method: Method, seed: int) -> Trainer:
            torch.manual_seed(seed)
            model = CompactResNet(preset.width).to(device)
            settings, schedule = resolved.of(method)
            return Trainer(
                model, train, evaluate, method, settings, schedule, seed, augment=preset.augment
            )

        results = comparison.run_all(options, methods, resolved.config, make)
        report(results, options, f"Compact ResNet on CIFAR-10 ({pictures.source}), {options.preset}",
               "validation_accuracy", "accuracy on test pictures", max)  # fmt: skip
    return results


if __name__ == "__main__":
    main()
