"""``python -m benchmarks.optim``: optimizer steps against a copy of as many bytes.

Every op takes turns with a plain float32 copy that reads and writes the same number of bytes, so that
each ratio is formed inside one round on the machine as it is in that moment; the median of the rounds
is printed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks._bench import interleave, machine, ratios
from benchmarks.quantize import timed
from torchext import random
from torchext.optim import ops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=25_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    n = options.elements
    generator = torch.Generator().manual_seed(1)

    def values() -> list[Tensor]:
        return [torch.randn(n, generator=generator)]

    param, center, grad, at_center, full = (values() for _ in range(5))
    real, delta, key = [torch.zeros(n)], [torch.tensor(1e-3)], random.key_from_seed(1)
    stats = [torch.zeros(6, dtype=torch.float64)]
    rows = []
    contestants: list[tuple[str, float, Callable[[], None]]] = []
    for bits, dtype, size in ((4, torch.uint8, 0.5), (8, torch.int8, 1), (16, torch.int16, 2)):
        z = [torch.zeros(int(n * min(size, 1)) + n % 2 * (bits == 4), dtype=dtype)]

        def step(z: list[Tensor] = z, bits: int = bits, stats: list[Tensor] = []) -> None:  # noqa: B006
            ops.foreach_halp_step_(
                param, z, center, delta, grad, at_center, full, [], stats, 1e-3, 0, 1, 0, 0, bits, 0,
                key, [0],
            )  # fmt: skip

        contestants.append((f"halp_step {bits} bits", 20 + 2 * size, step))
        if bits == 8:
            contestants.append(("halp_step 8 bits, telemetry", 22, lambda s=step: s(stats=stats)))  # type: ignore[misc]
            contestants.append(
                (
                    "halp_materialize 8 bits",
                    9,
                    lambda z=z: ops.foreach_halp_materialize_(param, z, center, delta),  # type: ignore[misc]
                )
            )
    contestants.append(
        (
            "svrg_step",
            28,
            lambda: ops.foreach_svrg_step_(
                param, real, center, grad, at_center, full, [], [], 1e-3, 0, 1, 0, 0, 0
            ),
        )
    )
    for name, traffic, call in contestants:
        words = int(n * traffic / 8)
        source, target = torch.zeros(words), torch.zeros(words)
        times = interleave(
            {
                "op": lambda call=call: timed(call),  # type: ignore[misc]
                "copy": lambda s=source, t=target: timed(lambda: t.copy_(s)),  # type: ignore[misc]
            },
            options.rounds,
        )
        rate = ratios(times["copy"], times["op"])
        rows.append({"op": name, "bytes per element": traffic, "rate of a copy": rate})
        print(
            f"{name:28} {traffic:5.1f} bytes per element, {rate['median']:.2f} of the rate of a copy"
            f" ({rate['q25']:.2f}-{rate['q75']:.2f})"
        )
    if options.json:
        facts = {"machine": machine(), "elements": n, "threads": options.threads, "rows": rows}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
