"""One epoch of mini-batch SGD written from the formulas, in numpy: the reference of the kernels' tests.

Float32 where the kernels use float32 and in the documented order, int64 for the integer products, so
results can be compared bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from torchext.random import Purpose, key_from_seed

F = np.float32


@dataclass
class Problem:
    """Random codes with everything an epoch takes; ``call`` runs the op, ``model`` the reference."""

    rows: int
    cols: int
    bits: int
    planes: int = 1
    books: int = 1
    affine: bool = False
    outputs: int = 1
    layout: str = "tile4"
    seed: int = 0
    raw: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        n, entries = self.cols, 1 << self.bits
        self.raw = rng.integers(0, entries, (self.rows, n), dtype=np.uint8)
        shape = (self.planes, self.books, n, entries)
        self.table = (
            np.zeros(0, np.uint8) if self.affine else rng.integers(0, 256, shape, dtype=np.uint8)
        )
        top = entries - 1 if self.affine else 255 if self.planes == 1 else 65535
        step = (rng.uniform(0.5, 2.0, n) / top).astype(F)
        self.grid = np.stack([-rng.uniform(0.2, 1.0, n).astype(F), step], 1)
        self.y = rng.normal(size=(self.rows, self.outputs)).astype(F)
        self.x = (rng.normal(size=(self.outputs, n)) / np.sqrt(n)).astype(F)
        self.codes = pack(self.raw, self.bits, self.layout)
        self.key = key_from_seed(11)

    @property
    def integers(self) -> np.ndarray:
        """T of every book, int64 [books, rows, cols]."""
        if self.affine:
            return self.raw[None].astype(np.int64)
        columns = np.arange(self.cols)
        planes = [
            self.table[p][:, columns, self.raw].astype(np.int64) << (8 * p)
            for p in range(self.planes)
        ]
        return sum(planes)

    @property
    def values(self) -> np.ndarray:
        """Decoded values, float32 [books, rows, cols]."""
        return self.grid[:, 0] + self.grid[:, 1] * self.integers.astype(F)

    def call(self, steps: int = 3, device: str = "cpu", **changes: object) -> dict[str, np.ndarray]:
        """Run ``_sgd_epoch`` and return x, intercept, average and sums."""
        a = arguments(self, steps) | {"codes": self.codes} | changes

        def there(value: object) -> torch.Tensor | None:
            found = tensor(value)
            return None if found is None else found.to(device)

        state = {name: there(a[name]) for name in ("x", "intercept", "average")}
        sums = torch.ops.torchext._sgd_epoch(
            there(a["codes"]), self.rows, self.cols, a["bits"], self.layout, there(self.grid),
            there(self.table), there(a["y"]), there(a["weight"]), there(a["z0"]), state["x"],
            state["intercept"], there(a["x0"]), there(a["constant"]), there(a["shrink"]),
            state["average"], there(a["order"]), there(a["gamma"]), a["batch"], a["loss"], a["l1"],
            a["l2"], a["variance_reduced"], a["fit_intercept"], a["model_bits"],
            a["residual_bits"], a["gradient_bits"], there(a["key"]), a["first_step"], a["threads"],
        )  # fmt: skip
        results = {k: v for k, v in state.items() if v is not None} | {"sums": sums}
        return {k: v.cpu().numpy() for k, v in results.items()}


def arguments(p: Problem, steps: int) -> dict[str, object]:
    """Defaults of every argument of the op."""
    batches = (p.rows + 63) // 64
    return {
        "bits": p.bits, "y": p.y, "weight": None, "z0": None, "x": p.x, "intercept": np.zeros(p.outputs, F),
        "x0": None, "constant": None, "shrink": None, "average": np.zeros((p.outputs, p.cols + 1)),
        "order": np.arange(steps) % batches, "gamma": np.full(steps, 0.05), "batch": 64,
        "loss": "squared_error", "l1": 0.0, "l2": 0.0, "variance_reduced": False, "fit_intercept": False,
        "model_bits": 8, "residual_bits": 8, "gradient_bits": 0, "key": p.key, "first_step": 0, "threads": 1,
    }  # fmt: skip


def tensor(value: object) -> torch.Tensor | None:
    """A tensor of its own, so that in-place arguments leave the problem untouched."""
    if value is None or isinstance(value, torch.Tensor):
        return value
    return torch.from_numpy(np.array(value))


def planes_of(bits: int) -> list[tuple[int, int]]:
    """(first bit, width) of every plane, low bits first."""
    out, low = [], 0
    while low < bits:
        p = next(w for w in (8, 4, 2, 1) if w <= bits - low)
        out.append((low, p))
        low += p
    return out


def pack(raw: np.ndarray, bits: int, layout: str) -> np.ndarray:
    """Codes [rows, cols] in a layout, written from its definition."""
    rows, cols = raw.shape
    if layout == "row":
        parts = []
        for low, p in planes_of(bits):
            units = -(-cols * p // 512)
            padded = np.zeros((rows, units * 512 // p), np.uint8)
            padded[:, :cols] = raw >> low & (1 << p) - 1
            fields = padded.reshape(rows, units, 8 // p, 64)
            parts.append(sum(fields[:, :, f] << (p * f) for f in range(8 // p)).reshape(rows, -1))
        return np.concatenate(parts, 1).astype(np.uint8).ravel()
    unit = 64 if layout == "tile4" else 128
    tiles, groups = -(-rows // unit), -(-cols // 4)
    padded = np.zeros((tiles * unit, groups * 4), np.uint8)
    padded[:rows, :cols] = raw
    parts = []
    for low, p in planes_of(bits):
        part = padded >> low & (1 << p) - 1
        if layout == "block":
            fields = part[:, :cols].reshape(tiles, 8 // p, 16 * p, cols)
            packed = sum(fields[:, f] << (p * f) for f in range(8 // p))
            parts.append(packed.transpose(0, 2, 1))  # tile, column, byte
        else:
            lines, per = max(1, p // 2), 16 if p > 1 else 8
            fields = part.reshape(tiles, lines, 8 // p, per, groups, 4)
            packed = sum(
                fields[:, :, f] << (p * f) for f in range(8 // p)
            )  # tile, line, r, group, c
            parts.append(packed.transpose(0, 3, 1, 2, 4).reshape(tiles, groups, -1))
    return np.concatenate(parts, 2).astype(np.uint8).ravel()


def fold(key: torch.Tensor, *data: int) -> torch.Tensor:
    for d in data:
        key = torch.ops.torchext.fold_in(key, int(d))
    return key


def halves(key: torch.Tensor, stream: int, draw: int, count: int) -> np.ndarray:
    """16-bit uniforms: low half first, 8 per Philox block."""
    words = torch.ops.torchext._philox(key, -(-count // 8), stream, draw).numpy().astype(np.uint32)
    return (words.view(np.uint16)[:count].astype(F) * F(2**-16)).astype(F)


def scale_of(v: np.ndarray, bits: int) -> tuple[F, F]:
    scale = F(np.abs(v).max()) / F(2 ** (bits - 1) - 1)
    return (scale, F(1) / scale) if scale >= F(2**-126) else (F(0), F(0))


def stochastic(v: np.ndarray, inverse: F, bits: int, u: np.ndarray) -> np.ndarray:
    t = v * inverse
    low = np.floor(t)
    top = 2 ** (bits - 1) - 1
    return np.clip(low + (u < t - low), -top, top).astype(np.int64)


def lane_sum(v: np.ndarray) -> F:
    """Blocks of 64 columns into 16 lanes, blocks in order, then halves."""
    padded = np.zeros(-(-len(v) // 64) * 64, F)
    padded[: len(v)] = v
    lanes = np.zeros(16, F)
    for block in padded.reshape(-1, 4, 16):
        lanes = lanes + (((block[0] + block[1]) + block[2]) + block[3])
    for half in (8, 4, 2, 1):
        lanes = lanes[:half] + lanes[half : 2 * half]
    return lanes[0]


def epoch(p: Problem, steps: int = 3, **changes: object) -> dict[str, np.ndarray]:
    """The integer epoch of linear models: squared error, every option but log_loss."""
    a = arguments(p, steps) | changes
    lo, step = p.grid[:, 0], p.grid[:, 1]
    x, b = np.array(a["x"]), np.array(a["intercept"])
    average, sums = np.array(a["average"]), np.zeros((3, p.outputs))
    plane = [
        ((p.integers >> (8 * q)) & (255 if q == 0 and p.planes == 2 else 0xFFFFFF))
        for q in range(p.planes)
    ]
    for i, number in enumerate(a["order"]):
        s, gamma = a["first_step"] + i, F(a["gamma"][i])
        rows = slice(number * a["batch"], min(p.rows, (number + 1) * a["batch"]))
        count = rows.stop - rows.start
        for o in range(p.outputs):
            v = x[o] - a["x0"][o, : p.cols] if a["variance_reduced"] else x[o]
            w = step * v
            sigma, inverse = scale_of(w, a["model_bits"])
            wq = stochastic(
                w, inverse, a["model_bits"], halves(fold(p.key, Purpose.MODEL, s), o, 0, p.cols)
            )
            beta = lane_sum(lo * v)
            e = []
            for book in range(p.books):
                d = [(t[book, rows] @ wq).astype(F) for t in plane]
                dot = d[0] if p.planes == 1 else d[1] * F(256) + d[0]
                z = (dot * sigma + beta) + b[o]
                r = z if a["variance_reduced"] else z - a["y"][rows, o]
                e.append(r if a["weight"] is None else r * a["weight"][rows])
                loss = F(0.5) * (r * r) * (1 if a["weight"] is None else a["weight"][rows])
                sums[0, o] += loss.sum(dtype=np.float64)
                sums[1, o] += (e[-1] * e[-1]).sum(dtype=np.float64)
            sums[2, o] += count
            scale, inverse = scale_of(np.stack(e), a["residual_bits"])
            key = fold(p.key, Purpose.ACT, s)
            eq = [
                stochastic(e[k], inverse, a["residual_bits"], halves(key, o, k, count))
                for k in range(p.books)
            ]
            c = [
                sum(eq[p.books - 1 - k] @ t[k, rows] for k in range(p.books)).astype(F)
                for t in plane
            ]
            product = c[0] if p.planes == 1 else c[1] * F(256) + c[0]
            total, factor = F(sum(q.sum() for q in eq)), scale / F(count * p.books)
            g = (lo * total + step * product) * factor
            if a["gradient_bits"]:
                size, inverse = scale_of(g, a["gradient_bits"])
                words = torch.ops.torchext._philox(
                    fold(p.key, Purpose.GRAD, s), -(-p.cols // 4), o, 0
                ).numpy()
                u = ((words >> 8) * 2.0**-24).astype(F)[: p.cols]
                g = stochastic(g, inverse, a["gradient_bits"], u).astype(F) * size
            if a["constant"] is not None:
                g = g + a["constant"][o, : p.cols]
            if a["l2"]:
                g = g + x[o] * F(a["l2"])
            if a["shrink"] is not None:
                g = g - a["shrink"] * (x[o] - (0 if a["x0"] is None else a["x0"][o, : p.cols]))
            x[o] = x[o] - g * gamma
            if a["l1"]:
                x[o] = np.sign(x[o]) * np.maximum(np.abs(x[o]) - gamma * F(a["l1"]), F(0))
            if a["fit_intercept"]:
                b[o] = b[o] - gamma * (factor * total)
            average[o] += np.append(x[o], b[o]).astype(np.float64)
    return {"x": x, "intercept": b, "average": average, "sums": sums}
