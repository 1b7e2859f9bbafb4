"""``python -m benchmarks.optim``: optimizer steps against a copy of as many bytes, and inside a network.

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
from torch import Tensor, nn

from benchmarks._bench import interleave, machine, ratios
from benchmarks.quantize import timed
from torchext import random
from torchext.optim import HALP, ops


def net_step(rounds: int) -> dict[str, float]:
    """A HALP step of a small conv net, two passes and the update, against two plain passes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 64, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    x, y = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
    opt = HALP(model.parameters(), 0.01, 1 << 30, mu=4.0)

    def closure() -> Tensor:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    opt.recenter([closure])
    times = interleave(
        {
            "passes": lambda: timed(lambda: (closure(), closure())),
            "step": lambda: timed(lambda: opt.step(closure)),
        },
        rounds,
        warmup=3,
    )
    return ratios(times["step"], times["passes"])


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
    net = net_step(3 * options.rounds)
    print(
        f"a step of a conv net takes {net['median']:.3f} of the time of two plain passes"
        f" ({net['q25']:.3f}-{net['q75']:.3f})"
    )
    if options.json:
        facts = {
            "machine": machine(),
            "elements": n,
            "threads": options.threads,
            "rows": rows,
            "net": net,
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
