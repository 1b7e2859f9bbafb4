"""``python -m training.halp_kappa``: the condition number against the bits (HALP, Figure 5).

Least squares, 400 x 20, with prescribed singular values: the Hessian's eigenvalues run from 1 down to
1 / kappa. 50 centres of T = 800 single-example steps from w = 0. Drawn: the norm of the full gradient at the
end against kappa, for each method the best of alpha L in {0.1, 0.3} and, for HALP, of alpha T mu in
{1, 3} (below 8 bits in {3, 10}); L is the largest squared norm of an example. The lattice of the LP
methods holds [-3, 3].

    python -m training.halp_kappa --plot kappa.png
    python -m training.halp_kappa --kappas 1 10 --methods svrg halp-8
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from training.common import comparison, plots
from training.common.methods import Method, Settings
from training.least_squares import LeastSquares, conditioned_problem

METHODS = ("svrg", "lp-svrg-16", "lp-svrg-8", "halp-16", "halp-8", "halp-4")
KAPPAS = (1.0, 10.0, 100.0, 1000.0)
#: alpha L; alpha T mu from 8 bits on, and below.
STEPS, BOXES, BOXES_OF_FEW_BITS = (0.1, 0.3), (1.0, 3.0), (3.0, 10.0)
RANGE = 3.0


@dataclass(frozen=True)
class Point:
    """A method at one condition number with one choice of its numbers."""

    method: Method
    kappa: float
    step: float
    box: float | None

    @property
    def name(self) -> str:
        """Of the run's folder."""
        box = "" if self.box is None else f"-box{self.box:g}"
        return f"{self.method.name}-kappa{self.kappa:g}-step{self.step:g}{box}"

    def settings(self, smoothness: float, steps: int) -> Settings:
        """With the numbers in the units of the problem."""
        lr = self.step / smoothness
        if self.method.kind == "lp-svrg":
            return Settings(lr, delta=RANGE / (2 ** (self.method.bits - 1) - 1))
        return Settings(lr) if self.box is None else Settings(lr, mu=self.box / (lr * steps))


def points(methods: Sequence[str], kappas: Sequence[float]) -> Iterator[Point]:
    """The grid.

    Raises:
        ValueError: a method that is none of SVRG, LP-SVRG and HALP.
    """
    for name in methods:
        method = Method.parse(name)
        if method.kind not in ("svrg", "lp-svrg", "halp"):
            raise ValueError(f"the sweep has svrg, lp-svrg-B and halp-B, got {name!r}")
        boxes: tuple[float | None, ...] = (None,)
        if method.kind == "halp":
            boxes = BOXES if method.bits >= 8 else BOXES_OF_FEW_BITS
        for kappa in kappas:
            for step in STEPS:
                for box in boxes:
                    yield Point(method, kappa, step, box)


def best(results: comparison.Results, grid: Sequence[Point]) -> dict[str, dict[float, float]]:
    """By method and kappa: the smallest gradient norm at the end, over the grid; mean over seeds."""
    found: dict[str, dict[float, float]] = {}
    for point in grid:
        runs = results[point.name].values()
        norm = sum(rows[-1]["gradient_norm"] for rows in runs) / len(runs)
        by_kappa = found.setdefault(point.method.name, {})
        by_kappa[point.kappa] = min(norm, by_kappa.get(point.kappa, norm))
    return found


def main(arguments: list[str] | None = None) -> dict[str, dict[float, float]]:
    """Runs, prints the table and draws."""
    p = comparison.parser(__doc__ or "", METHODS, "runs/halp_kappa")
    p.add_argument("--kappas", type=float, nargs="+", default=list(KAPPAS), metavar="K",
                   help="condition numbers of the Hessian (default: 1 10 100 1000)")  # fmt: skip
    p.add_argument("--epochs", type=int, default=50, help="centres (default: 50)")
    p.add_argument("--steps", type=int, default=800, help="T (default: 800)")
    options = p.parse_args(arguments)

    def settings(point: Point) -> Settings:
        return point.settings(conditioned_problem(point.kappa).smoothness, options.steps)

    def config(point: Point, seed: int) -> dict[str, Any]:
        lengths = {"epochs": options.epochs, "steps": options.steps}
        return lengths | {"point": point.name, "seed": seed}

    def make(point: Point, seed: int) -> LeastSquares:
        problem = conditioned_problem(point.kappa)
        return LeastSquares(
            problem, point.method, settings(point), options.epochs, options.steps, seed
        )

    with comparison.one_sentence("training.halp_kappa"):
        grid = list(points(options.methods, options.kappas))
        results = comparison.run_all(options, grid, config, make)
        found = best(results, grid)
        heads = [f"kappa {k:g}" for k in options.kappas]
        print("\n| method | " + " | ".join(heads) + " |\n| --- |" + " --- |" * len(heads))
        for name, by_kappa in found.items():
            print(f"| {name} | " + " | ".join(f"{v:.1e}" for v in by_kappa.values()) + " |")
        if options.plot:
            curves = {name: [(list(by), list(by.values()))] for name, by in found.items()}
            panel = plots.Panel(
                curves, "condition number of the Hessian", "gradient norm at the end",
                log_x=True, points=True,
            )  # fmt: skip
            title = f"Least squares, {options.epochs} centres of {options.steps} steps"
            plots.draw(options.plot, title, [panel])
    return found


if __name__ == "__main__":
    main()
