"""``python -m training.mnist``: multi-class logistic regression on MNIST, 8 bits (HALP, Figure 4).

Ten classes, pixels rounded to the 8-bit codes 0 .. 127 (x = code / 127) for every method, weight decay
``--l2`` as part of the objective, no intercept, from w = 0, in float64; the figure is the norm of the full
gradient over that at the start. Two families:

* mini-batches of 100, T = one epoch (600 steps): ``sgd svrg lp-sgd-8 lp-svrg-8 halp-8 halp-16``;
* the solvers for linear models, one example a step, T = 2 N: ``lm-svrg`` in float32, ``lm-halp-16`` and
  ``lm-halp-8`` on integers: 8-bit data, offsets of 16 or 8 bits.

    python -m training.mnist --plot mnist.png
    python -m training.mnist --part t10k --methods lm-svrg lm-halp-16 --epochs 15
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training import data
from training.common import comparison, plots
from training.common.methods import Method, Settings
from training.common.runs import Row
from training.common.trainer import Batch, Schedule, Trainer
from training.integer_halp import IntegerHalp, LinearMethod

METHODS = (
    "sgd", "svrg", "lp-sgd-8", "lp-svrg-8", "halp-8", "halp-16", "lm-svrg", "lm-halp-8", "lm-halp-16",
)  # fmt: skip
#: The lattices of the LP methods hold [-1, 1]: the weights of the solution are below 0.6.
SETTINGS = {
    "sgd": Settings(0.02), "svrg": Settings(0.05), "lp-sgd-8": Settings(0.02, delta=1 / 127),
    "lp-svrg-8": Settings(0.05, delta=1 / 127), "halp-8": Settings(0.05), "halp-16": Settings(0.05),
}  # fmt: skip
BATCH = 100


class Problem:
    """Codes, classes and the regularised objective; also the examples of the trainer."""

    def __init__(self, part: data.Labelled, test: data.Labelled, l2: float) -> None:
        self.x, self.y, self.l2 = self._pixels(part), part.y, l2
        self.test_x, self.test_y = self._pixels(test), test.y
        self.start = float(
            self._gradient(torch.zeros(10, self.x.shape[1], dtype=torch.float64)).norm()
        )

    @staticmethod
    def _pixels(part: data.Labelled) -> Tensor:
        return (part.x.flatten(1).double() * (127 / 255)).round() / 127

    def _gradient(self, w: Tensor) -> Tensor:
        p = torch.softmax(self.x @ w.T, 1)
        p[torch.arange(len(p)), self.y] -= 1
        return p.T @ self.x / len(p) + self.l2 * w

    def figures(self, w: Tensor) -> Row:
        """Gradient norm and accuracy on the test pictures at weights (10, 784)."""
        norm = float(self._gradient(w).norm())
        right = (self.test_x @ w.T).argmax(1) == self.test_y
        accuracy = float(right.double().mean())
        return {"gradient_norm": norm, "relative": norm / self.start, "test_accuracy": accuracy}

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, rows: Tensor, noise: torch.Generator | None) -> Batch:
        """Some pictures and their classes; there is no augmentation."""
        return self.x[rows], self.y[rows]


def parse(name: str) -> Any:
    """A method of :mod:`training.common.methods`, or of the solvers for linear models."""
    return LinearMethod.parse(name) or Method.parse(name)


def main(arguments: list[str] | None = None) -> comparison.Results:
    """Runs, prints the table and draws."""
    p = comparison.parser(__doc__ or "", METHODS, "runs/mnist")
    comparison.add_data(p)
    p.add_argument("--part", choices=("train", "t10k"), default="train",
                   help="60,000 or 10,000 pictures to train on; tested on t10k (default: train)")  # fmt: skip
    p.add_argument("--first", type=int, metavar="N", help="use the first N of them only")
    p.add_argument("--l2", type=float, default=0.02, help="weight decay (default: 0.02)")
    p.add_argument("--epochs", type=int, default=10, help="(default: 10)")
    p.add_argument("--lr", type=float, help="step size of the mini-batch methods")
    p.add_argument("--mu", type=float, help="of HALP, in place of the automatic choice")
    p.add_argument(
        "--lm-lr", type=float, default=0.25, help="step of the linear solvers times L (0.25)"
    )
    options = p.parse_args(arguments)
    given = {k: v for k, v in (("lr", options.lr), ("mu", options.mu)) if v is not None}

    with comparison.one_sentence("training.mnist"):
        methods = [parse(name) for name in options.methods]
        root = data.data_root(options.data)
        part, test = data.mnist(root, options.part), data.mnist(root, "t10k")
        first = len(part.y) if options.first is None else options.first
        problem = Problem(data.Labelled(part.x[:first], part.y[:first]), test, options.l2)
        x = problem.x.numpy()
        smoothness = IntegerHalp.smoothness(x, "softmax", options.l2)
        shared = {"part": options.part, "examples": len(problem), "epochs": options.epochs}

        def settings(method: Method | LinearMethod) -> Settings:
            if isinstance(method, LinearMethod):
                own = Settings(options.lm_lr / smoothness)
            else:
                own = SETTINGS.get(method.name) or SETTINGS[method.kind + "-8"]
                own = Settings(**(asdict(own) | given))
            return Settings(**(asdict(own) | {"weight_decay": options.l2}))

        def config(method: Method | LinearMethod, seed: int) -> dict[str, Any]:
            return shared | {"method": method.name, "seed": seed} | asdict(settings(method))

        def make(method: Method | LinearMethod, seed: int) -> Any:
            own = settings(method)
            if isinstance(method, LinearMethod):
                y = problem.y.numpy().astype(np.float64)
                return IntegerHalp(
                    x, y, "softmax", method, own, options.epochs, seed, problem.figures
                )
            model = nn.Linear(x.shape[1], 10, bias=False, dtype=torch.float64)
            nn.init.zeros_(model.weight)

            def evaluate(model: nn.Module) -> Row:
                return problem.figures(next(model.parameters()).detach())

            schedule = Schedule(options.epochs, BATCH)
            return Trainer(model, problem, evaluate, method, own, schedule, seed)

        results = comparison.run_all(options, methods, config, make)
        columns = {
            "gradient_epochs": "gradients (epochs of them)", "relative": "gradient norm over start",
            "test_accuracy": "test accuracy", "seconds": "seconds",
        }  # fmt: skip
        print("\n" + comparison.table(results, columns, {}))
        print(comparison.reached(results, "relative", 1e-6))
        if options.plot:
            batch = {k: v for k, v in results.items() if not k.startswith("lm")}
            linear = {k: v for k, v in results.items() if k.startswith("lm")}
            panels = [
                plots.Panel(
                    comparison.curves(group, "epoch", "relative"), label, "gradient norm over start"
                )
                for group, label in (
                    (batch, "epoch (T = 600 batches of 100)"),
                    (linear, "epoch (T = 2 N single examples)"),
                )
                if group
            ]
            note = f"{len(problem):,} pictures, 8-bit pixels, weight decay {options.l2:g}."
            plots.draw(options.plot, "Softmax regression on MNIST", panels, note)
    return results


if __name__ == "__main__":
    main()
