"""``python -m benchmarks.cuda``: the CUDA ops against a copy, cuBLAS and other libraries, on this GPU.

Every operation takes turns with a device copy that reads and writes as many bytes, so each fraction of
the copy's bandwidth is formed inside one round, and with its rivals, where there are any. Times are those of
CUDA events on one stream, after warm-up; medians over the rounds with quartiles. An operation
that this build lacks on CUDA is listed as "not built", a rival that is not installed as "not installed";
anything else that fails is listed too and makes the exit status 1.

    python -m benchmarks.cuda                            # everything, a few minutes
    python -m benchmarks.cuda --only codec linear --json build/bench-gpu.json
    python -m benchmarks.cuda --device cpu --quick       # do the cases run? Times mean nothing
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks._bench import interleave, machine, ratios, write

Run = Callable[[], object]
Timer = Callable[[Run], float]


@dataclass
class Contest:
    """What takes turns: an operation, the bytes that it has to move, and its rivals."""

    run: Run
    bytes: int
    rivals: dict[str, Run] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # rivals that cannot run, and why
    note: str = ""
    close: Run = lambda: None


@dataclass
class Options:
    """Where and how much."""

    device: torch.device
    quick: bool
    rounds: int

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


#: name: (group, how to set it up)
Cases = dict[str, tuple[str, Callable[[Options], Contest]]]


class EventTimer:
    """Seconds between two events around a call on the current stream."""

    def __call__(self, run: Run) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return 1e-3 * float(begin.elapsed_time(end))


def wall_timer(run: Run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def reason_missing(error: Exception) -> str | None:
    """The first line of an error that says this build has no such thing on the device; else None."""
    text = str(error).split("\n")[0]
    refused = "needs the CUDA kernels" in text or ("optimal_levels: " in text and "on CUDA" in text)
    return text[:160] if refused or isinstance(error, NotImplementedError) else None


def copy_of(size: int, device: torch.device) -> Run:
    """A copy that reads and writes ``size`` bytes together."""
    source = torch.zeros(max(1, size // 8), device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def measure(name: str, set_up: Callable[[Options], Contest], o: Options, timer: Timer) -> Any:
    """One row of the table."""
    try:
        contest = set_up(o)
        contest.run()
    except Exception as error:  # reported, and in the exit status unless it means "not built"
        missing = reason_missing(error)
        kind = "failed" if missing is None else "not built"
        return {"name": name, kind: missing or f"{type(error).__name__}: {error}"}
    runs = {"ours": contest.run, "copy": copy_of(contest.bytes, o.device), **contest.rivals}
    absent = dict(contest.absent)
    for rival in contest.rivals:
        try:
            runs[rival]()
        except Exception as error:
            absent[rival] = "failed: " + (str(error) or repr(error)).splitlines()[0]
            del runs[rival]
    seconds = interleave({n: (lambda r=r: timer(r)) for n, r in runs.items()}, o.rounds, warmup=2)  # type: ignore[misc]
    contest.close()
    ours = seconds["ours"]
    return {
        "name": name,
        "bytes": contest.bytes,
        "seconds": seconds,
        "GB/s": 1e-9 * contest.bytes / statistics.median(ours),
        "of copy": ratios(seconds["copy"], ours),
        "against": {r: ratios(seconds[r], ours) for r in runs if r not in ("ours", "copy")},
        "absent": absent,
        "note": contest.note,
    }


def spread(r: dict[str, float]) -> str:
    return f"{r['median']:.2f} ({r['q25']:.2f}-{r['q75']:.2f})"


def lines(row: dict[str, Any]) -> list[str]:
    """A row of the table as text."""
    for kind in ("not built", "failed"):
        if kind in row:
            return [f"{row['name']:44} {kind}: {row[kind]}"]
    milliseconds = 1e3 * statistics.median(row["seconds"]["ours"])
    out = [
        f"{row['name']:44} {milliseconds:9.3f} ms {row['GB/s']:8.1f} GB/s"
        f"  {spread(row['of copy']):>18} of a copy{row['note']}"
    ]
    out += [f"    {spread(r):>18} times {rival}" for rival, r in row["against"].items()]
    out += [f"    {rival}: {why}" for rival, why in row["absent"].items()]
    return out


def gpu(device: torch.device) -> dict[str, Any]:
    """What a figure of a GPU must carry."""
    if device.type != "cuda":
        return {"name": "none"}
    p = torch.cuda.get_device_properties(device)
    return {
        "name": p.name,
        "capability": f"{p.major}.{p.minor}",
        "multiprocessors": p.multi_processor_count,
        "memory_gib": p.total_memory / 2**30,
        "cuda": torch.version.cuda,
    }


def main(arguments: list[str] | None = None, timer: Timer | None = None) -> int:
    """Run, print, write JSON; 1 if an operation failed."""
    from benchmarks._cuda_cases import CASES

    groups = list(dict.fromkeys(group for group, _ in CASES.values()))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=groups, default=groups, help="some groups")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each, >= 7 (default 9)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, .. (cpu: a smoke test)")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--json", type=Path, help="file for the results")
    a = parser.parse_args(arguments)
    if a.rounds < 7:
        parser.error(f"--rounds must be at least 7, got {a.rounds}")
    device = torch.device(a.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("benchmarks.cuda: no GPU: torch.cuda.is_available() is False", file=sys.stderr)
        return 2
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if timer is None:
        timer = EventTimer() if device.type == "cuda" else wall_timer
    o = Options(device, a.quick, a.rounds)
    facts: dict[str, Any] = {"machine": machine(), "gpu": gpu(device), "quick": a.quick, "rows": []}
    print(
        f"{facts['gpu']['name']}, torch {torch.__version__}, {a.rounds} rounds; medians (quartiles)"
    )
    for name, (group, set_up) in CASES.items():
        if group not in a.only:
            continue
        row = {"group": group, **measure(name, set_up, o, timer)}
        facts["rows"].append(row)
        print("\n".join(lines(row)), flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    write(a.json, facts)
    return int(any("failed" in row for row in facts["rows"]))


if __name__ == "__main__":
    sys.exit(main())
