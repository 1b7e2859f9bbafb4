"""What the tests of level tables share: data of many kinds, the objective and its optimum by brute force."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

OBJECTIVES = ("stochastic", "nearest")

numbers = st.one_of(
    st.integers(-20, 20).map(float),
    st.floats(-1e6, 1e6, width=32),
    st.sampled_from([0.0, -0.0, 1e-30, -1e-30, 1e8, 1e8 + 8]),
)


def cost_of(
    x: Tensor, levels: Tensor, objective: str, weight: Tensor | None = None, covers: bool = True
) -> float:
    """F of the levels from its definition, in long double; `covers`: they end at the ends of the data."""
    v = x.double().numpy().astype(np.longdouble).reshape(-1)
    q = levels.double().numpy().astype(np.longdouble)
    w = np.ones(v.size) if weight is None else weight.double().numpy().reshape(-1)
    v, w = v[w > 0], w[w > 0]
    if objective == "nearest":
        return float((w * ((v[:, None] - q[None]) ** 2).min(1)).sum())
    assert q[0] <= v.min() and q[-1] >= v.max()
    assert not covers or (q[0] == v.min() and q[-1] == v.max())
    up = np.clip(np.searchsorted(q, v), 1, len(q) - 1) if len(q) > 1 else np.zeros(v.size, int)
    lo, hi = q[up - 1], q[up]
    return float((w * (hi - v) * (v - lo)).sum())


def brute_force(x: list[Fraction], w: list[Fraction], s: int, objective: str) -> Fraction:
    """The optimum by trying everything: levels at data points, or clusters of neighbours."""
    nodes: dict[Fraction, Fraction] = {}
    for v, weight in zip(x, w, strict=True):
        if weight > 0:
            nodes[v] = nodes.get(v, Fraction(0)) + weight
    v = sorted(nodes)
    if s >= len(v):
        return Fraction(0)

    def interval(k: int, j: int) -> Fraction:
        inside = v[k : j + 1]
        return sum((nodes[t] * (v[j] - t) * (t - v[k]) for t in inside), Fraction(0))

    def cluster(k: int, j: int) -> Fraction:
        total = sum(nodes[t] for t in v[k:j])
        mean = sum(nodes[t] * t for t in v[k:j]) / total
        return sum((nodes[t] * (t - mean) ** 2 for t in v[k:j]), Fraction(0))

    cost, m, inner = (
        (interval, len(v) - 1, s - 2) if objective == "stochastic" else (cluster, len(v), s - 1)
    )
    return min(
        sum((cost(a, b) for a, b in itertools.pairwise((0, *cut, m))), Fraction(0))
        for cut in itertools.combinations(range(1, m), inner)
    )


def draw(name: str, n: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, generator=g, dtype=torch.float64)
    match name:
        case "normal":
            return z
        case "lognormal":
            return z.exp()
        case "exponential":
            return -(-torch.rand(n, generator=g, dtype=torch.float64)).log1p()
        case "uniform":
            return torch.rand(n, generator=g, dtype=torch.float64)
        case "cauchy":
            return z / torch.randn(n, generator=g, dtype=torch.float64)
        case "zeros":
            return z * (torch.rand(n, generator=g) < 0.1)
        case "clusters":
            return torch.randint(10, (n,), generator=g) + 1e-3 * z
        case "integers":
            return torch.randint(256, (n,), generator=g).double()
        case "outliers":
            return torch.where(torch.rand(n, generator=g) < 1e-3, 1e6 * z, z)
        case "offset":
            return z + 1e6
        case "sorted":
            return z.sort().values
        case "reversed":
            return z.sort(descending=True).values
        case "distinct":
            return torch.arange(n, dtype=torch.float64)
        case "two":
            return (z > 0).double() * 3 - 1
        case "constant":
            return torch.full((n,), 0.7, dtype=torch.float64)
        case "denormal":
            return z * 1e-41
    raise ValueError(name)


NAMES = (
    "normal", "lognormal", "uniform", "cauchy", "zeros", "clusters", "integers", "outliers", "offset",
    "sorted", "reversed", "distinct", "two", "constant", "denormal",
)  # fmt: skip
