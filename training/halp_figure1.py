"""``python -m training.halp_figure1``: linear regression by every method and bit width (HALP, Figure 1).

1,000 examples, 100 features rounded to 8 bits for all methods, single-example steps, T = 2,000 steps from
centre to centre, f_i(w) = (x_i^T w - y_i)^2 / 2 from w = 0. Drawn: the norm of the full gradient.

``--problem paper`` is scikit-learn's make_regression as in the paper, labels without noise; ``noisy`` adds
label noise of deviation 10, without which plain SGD has hardly a floor. ``lm-halp-8`` is the integer solver
for linear models (``solver="halp"``): data, offset and products in 8-bit integers.

    python -m training.halp_figure1 --problem noisy --seeds 0 1 2 --plot figure1.png
    python -m training.halp_figure1 --methods halp-8 svrg --epochs 20
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from training.common import comparison, plots
from training.common.methods import Method, Settings
from training.integer_halp import IntegerHalp, LinearMethod
from training.least_squares import LeastSquares, noisy_problem, paper_problem

METHODS = (
    "sgd", "lp-sgd-16", "lp-sgd-8", "svrg", "lp-svrg-16", "lp-svrg-8",
    "halp-16", "halp-8", "halp-6", "halp-4", "bit-centred-8", "lm-halp-8",
)  # fmt: skip
#: Numbers of the paper where it gives them (SVRG, HALP: 5e-3, mu 3; spacings 0.7 and 0.003), tuned elsewhere.
PAPER = {
    "sgd": Settings(5e-3), "lp-sgd-16": Settings(1e-3, delta=0.003), "lp-sgd-8": Settings(1e-3, delta=0.8),
    "svrg": Settings(5e-3),
    "lp-svrg-16": Settings(5e-3, delta=0.0031), "lp-svrg-8": Settings(5e-3, delta=0.8),
    "halp-16": Settings(5e-3, mu=3.0), "halp-8": Settings(5e-3, mu=3.0), "halp-6": Settings(5e-3, mu=3.0),
    "halp-4": Settings(5e-3, mu=6.0), "bit-centred-8": Settings(1e-3, mu=3.0),
    "lm-halp-8": Settings(5e-3, mu=3.0),
}  # fmt: skip
NOISY = {
    "sgd": Settings(1e-4), "lp-sgd-16": Settings(1e-4, delta=0.003), "lp-sgd-8": Settings(1e-4, delta=0.8),
    "svrg": Settings(1e-3),
    "lp-svrg-16": Settings(1e-3, delta=0.0035), "lp-svrg-8": Settings(1e-3, delta=0.8),
    "halp-16": Settings(1e-3, mu=1.5), "halp-8": Settings(1e-3, mu=1.5), "halp-6": Settings(1e-3, mu=3.0),
    "halp-4": Settings(1e-3, mu=6.0), "bit-centred-8": Settings(1e-4, mu=3.0),
    "lm-halp-8": Settings(1e-3, mu=1.5),
}  # fmt: skip
PROBLEMS = {"paper": (paper_problem, PAPER), "noisy": (noisy_problem, NOISY)}


def parse(name: str) -> Any:
    """A method of :mod:`training.common.methods`, or the integer solver."""
    return LinearMethod.parse(name) or Method.parse(name)


def main(arguments: list[str] | None = None) -> comparison.Results:
    """Runs, prints the table and draws."""
    p = comparison.parser(__doc__ or "", METHODS, "runs/halp_figure1")
    p.add_argument("--problem", choices=list(PROBLEMS), default="paper", help="(default: paper)")
    p.add_argument("--epochs", type=int, default=60, help="centres (default: 60)")
    p.add_argument("--steps", type=int, default=2000, help="T (default: 2000)")
    options = p.parse_args(arguments)
    options.out = options.out / options.problem
    make_problem, settings = PROBLEMS[options.problem]

    def config(method: Any, seed: int) -> dict[str, Any]:
        lengths = {"problem": options.problem, "epochs": options.epochs, "steps": options.steps}
        return lengths | {"method": method.name, "seed": seed} | asdict(settings[method.name])

    def make(method: Any, seed: int) -> Any:
        problem, own = make_problem(seed), settings[method.name]
        if isinstance(method, LinearMethod):
            return IntegerHalp(problem.x, problem.y, "squared", method, own, options.epochs, seed)
        return LeastSquares(problem, method, own, options.epochs, options.steps, seed)

    with comparison.one_sentence("training.halp_figure1"):
        for name in options.methods:
            if name not in settings:
                raise ValueError(f"unknown method {name!r}, expected one of: {', '.join(settings)}")
        methods = [parse(name) for name in options.methods]
        results = comparison.run_all(options, methods, config, make)
        columns = {
            "gradient_norm": "gradient norm",
            "relative": "of the start",
            "seconds": "seconds",
        }
        print("\n" + comparison.table(results, columns, {}))
        if options.plot:
            curves = comparison.curves(results, "epoch", "gradient_norm")
            float_and_fixed = {
                k: v for k, v in curves.items() if "halp" not in k and "bit" not in k
            }
            centred = {k: v for k, v in curves.items() if k not in float_and_fixed or k == "svrg"}
            plots.draw(
                options.plot,
                f"Linear regression, {options.problem} problem",
                [
                    plots.Panel(
                        float_and_fixed, "epoch", "norm of the full gradient", "fixed lattice"
                    ),
                    plots.Panel(centred, "epoch", "", "lattice around a centre"),
                ],
                f"1,000 x 100, 8-bit inputs, T = {options.steps}; seeds {options.seeds}, band: range.",
            )
    return results


if __name__ == "__main__":
    main()
