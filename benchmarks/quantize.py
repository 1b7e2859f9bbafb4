"""``python -m benchmarks.quantize``: speed of the quantization ops, in bytes of float32 and against memcpy.

Every op takes turns with a plain copy of the same float32 values, so that each ratio is formed inside
one round on the machine as it is in that moment; the median of the rounds is printed.

Results are written to memory that the process already has, as in a loop that allocates and frees: the
benchmark starts itself again with glibc told to keep freed memory. ``--fresh`` measures first use instead,
where the system's page faults limit everything (a plain ``x.clone()`` of 256 MiB as well) to about 2 GB/s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks._bench import machine
from torchext import ops, random

#: glibc's thresholds above which freed memory goes back to the system.
KEEP = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1 << 26)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="count page faults of new memory")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.fresh and KEEP[0] not in os.environ:
        limits = dict.fromkeys(KEEP, str(1 << 40))
        os.execve(
            sys.executable,
            [sys.executable, "-m", "benchmarks.quantize", *sys.argv[1:]],
            {**os.environ, **limits},
        )
    torch.set_num_threads(options.threads)
    n = options.elements
    x = torch.randn(n, generator=torch.Generator().manual_seed(1))
    target = torch.empty_like(x)
    key = random.key_from_seed(1)
    rows = []
    for bits in (2, 4, 8):
        scale = ops.quantization_scale(x, bits, "symmetric", None, None)
        codes = ops.quantize(x, scale, None, bits, "symmetric", None, None, "stochastic", key)
        plain = ops.unpack_bits(codes, n, bits)
        table = torch.linspace(float(x.min()), float(x.max()), 1 << bits)
        calls: dict[str, Callable[[], object]] = {
            "quantize": lambda s=scale, b=bits: ops.quantize(  # type: ignore[misc]
                x, s, None, b, "symmetric", None, None, "stochastic", key
            ),
            "dequantize": lambda c=codes, s=scale, b=bits: ops.dequantize(  # type: ignore[misc]
                c, s, None, [n], b, "symmetric", None, None
            ),
            "fake_quantize": lambda s=scale, b=bits: ops.fake_quantize(  # type: ignore[misc]
                x, s, None, b, "symmetric", None, None, "stochastic", key
            ),
            "quantization_variance": lambda s=scale, b=bits: ops.quantization_variance(  # type: ignore[misc]
                x, s, None, b, "symmetric"
            ),
            "rounding_error": lambda t=table: ops.rounding_error(x, t),  # type: ignore[misc]
            "pack_bits": lambda p=plain, b=bits: ops.pack_bits(p, b),  # type: ignore[misc]
            "unpack_bits": lambda c=codes, b=bits: ops.unpack_bits(c, n, b),  # type: ignore[misc]
        }
        for name, call in calls.items():
            call()
            pairs = [(timed(call), timed(lambda: target.copy_(x))) for _ in range(options.rounds)]
            seconds = statistics.median(t for t, _ in pairs)
            ratio = statistics.median(t / copy for t, copy in pairs)
            rows.append(
                {
                    "op": name,
                    "bits": bits,
                    "GB/s of float32": 4e-9 * n / seconds,
                    "times a copy": ratio,
                }
            )
            print(
                f"{name:21} {bits} bits  {4e-9 * n / seconds:6.2f} GB/s of float32, {ratio:5.2f} x a copy"
            )
    if options.json:
        facts = {"machine": machine(), "elements": n, "threads": options.threads, "rows": rows}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
