"""scikit-learn's Ridge and LogisticRegression from 2-bit data: the same coefficients, fewer bytes read.

    python examples/python/exact_from_few_bits.py

The rows are encoded once. The solver works on the codes and looks at the full-precision rows a few times,
which makes its gradient exact. Codes do not depend on the penalty: a search over penalties encodes once.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn import linear_model
from sklearn.datasets import load_diabetes, load_digits

from torchext import QuantizedDataset
from torchext.linear import LogisticRegression, Ridge


def largest_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Relative to the largest coefficient."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def several_penalties(bits: int) -> list[float]:
    """Ridge for several alphas on one store; returns the differences to scikit-learn."""
    X, y = load_diabetes(return_X_y=True)
    store = QuantizedDataset.from_arrays(X, y, bits=bits, sampling="nearest", random_state=0)
    found = []
    for alpha in (0.01, 0.1, 1.0):
        model = Ridge(alpha=alpha).fit(X, y, store=store)
        exact = linear_model.Ridge(alpha=alpha).fit(X, y)
        found.append(largest_difference(model.coef_, exact.coef_))
        print(
            f"Ridge, alpha {alpha:<4}: R2 {model.score(X, y):.4f}, coefficients differ by {found[-1]:.0e}, "
            f"{model.n_anchors_} passes over the rows, {model.n_code_passes_} over the codes"
        )
    return found


def ten_digits(bits: int) -> float:
    """Softmax over ten classes; returns the difference of the probabilities to scikit-learn's."""
    X, y = load_digits(return_X_y=True)
    C = 0.01
    model = LogisticRegression(C=C, bits=bits).fit(X, y)
    exact = linear_model.LogisticRegression(C=C, tol=1e-8, max_iter=10_000).fit(X, y)
    found = float(np.abs(model.predict_proba(X) - exact.predict_proba(X)).max())
    print(
        f"LogisticRegression: accuracy {model.score(X, y):.4f}, probabilities differ by {found:.0e}, "
        f"{model.n_anchors_} passes over the rows, {model.n_code_passes_} over the codes"
    )
    return found


def main(argv: list[str] | None = None) -> tuple[list[float], float]:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--bits", type=int, default=2, help="bits per value, 1 to 8 (default 2)")
    given = parser.parse_args(argv)
    return several_penalties(given.bits), ten_digits(given.bits)


if __name__ == "__main__":
    main()
