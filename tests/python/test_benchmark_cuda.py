"""The logic of benchmarks.cuda without a GPU: a clock that is told what to say in place of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import _cuda_cases, cuda
from benchmarks.cuda import Contest, Options, measure, reason_missing

OPTIONS = Options(torch.device("cpu"), quick=True, rounds=7)


class Clock:
    """Runs a call and says how long it "took": what the call itself returns, a copy two milliseconds."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, run: Callable[[], Any]) -> float:
        self.calls += 1
        found = run()
        return found if isinstance(found, float) else 2e-3


def raises(error: Exception) -> Callable[[], object]:
    def run() -> object:
        raise error

    return run


def row(contest: Contest) -> dict[str, Any]:
    found: dict[str, Any] = measure("op", lambda _: contest, OPTIONS, Clock())
    return found


def test_ratios_and_rates() -> None:
    closed: list[int] = []
    found = row(
        Contest(lambda: 4e-3, 8 * 10**6, {"rival": lambda: 1e-2}, close=lambda: closed.append(1))
    )
    assert found["GB/s"] == pytest.approx(2.0)
    assert found["of copy"]["median"] == 0.5 and found["against"]["rival"]["median"] == 2.5
    assert {len(s) for s in found["seconds"].values()} == {7} and closed == [1]
    text = "\n".join(cuda.lines(found))
    assert "4.000 ms" in text and "0.50 (0.50-0.50) of a copy" in text
    assert "2.50 (2.50-2.50) times rival" in text


def test_rounds_are_paired_before_the_median_is_taken() -> None:
    """A machine that becomes half as fast in the middle changes no ratio."""
    ours, theirs = iter([9.0] * 3 + [1.0] * 5 + [2.0] * 4), iter([9.0] * 3 + [3.0] * 5 + [6.0] * 4)
    found = row(Contest(lambda: next(ours), 8, {"rival": lambda: next(theirs)}))
    assert found["against"]["rival"] == dict.fromkeys(("median", "q25", "q75", "min", "max"), 3.0)


@pytest.mark.parametrize(
    ("error", "missing"),
    [
        (NotImplementedError("Could not run 'torchext::x' with arguments from the 'CUDA' backend"), True),
        (ValueError("device='cuda' needs the CUDA kernels of torchext: none"), True),
        (AttributeError("no attribute '_halp_epoch'"), False),
        (RuntimeError("torchext::optimal_levels: method must be exact on CUDA, got hist"), True),
        (RuntimeError("torchext::quantize: x must be on CUDA"), False),
        (TypeError("fit() got an unexpected keyword argument 'device'"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("shapes do not match"), False),
        (AssertionError("wrong"), False),
    ],
)  # fmt: skip
def test_what_is_not_built_is_told_from_what_fails(error: Exception, missing: bool) -> None:
    assert (reason_missing(error) is not None) == missing
    found = row(Contest(raises(error), 8))
    kind = "not built" if missing else "failed"
    assert kind in found and f"{kind}: " in cuda.lines(found)[0]


def test_a_rival_that_fails_or_is_absent_leaves_ours() -> None:
    contest = Contest(lambda: 1e-3, 8, {"broken": raises(RuntimeError("no kernel image"))})
    _cuda_cases.library("no_such_library", lambda: lambda: 1e-3, contest, "other")
    found = row(contest)
    assert found["of copy"]["median"] == 2.0 and found["against"] == {}
    assert found["absent"] == {"other": "not installed", "broken": "failed: no kernel image"}
    assert "    other: not installed" in cuda.lines(found)


def test_copy_moves_as_many_bytes() -> None:
    """Half are read, half are written."""
    source = cuda.copy_of(800, torch.device("cpu"))()
    assert isinstance(source, torch.Tensor) and source.numel() * source.element_size() == 400


@pytest.mark.parametrize("group", ["codec", "optim", "levels", "linear"])
def test_every_case_runs_on_the_cpu(
    group: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    arguments = ["--device", "cpu", "--quick", "--only", group, "--json", str(file)]
    assert cuda.main(arguments, Clock()) == 0, capsys.readouterr().out
    facts = json.loads(file.read_text())
    wanted = [name for name, (g, _) in _cuda_cases.CASES.items() if g == group]
    assert [r["name"] for r in facts["rows"]] == wanted
    for r in facts["rows"]:
        assert r["bytes"] > 0 and {"ours", "copy"} <= set(r["seconds"]), r
    assert facts["gpu"] == {"name": "none"} and facts["machine"]["torch"] == torch.__version__
    printed = capsys.readouterr().out
    assert all(name in printed for name in wanted)


def test_a_failure_is_in_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    cases: cuda.Cases = {"bad": ("codec", lambda o: Contest(raises(ValueError("no")), 8))}
    monkeypatch.setattr(_cuda_cases, "CASES", cases)
    assert cuda.main(["--device", "cpu"], Clock()) == 1


def test_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--rounds", "3"], ["--only", "nothing"]):
        with pytest.raises(SystemExit) as stop:
            cuda.main(["--device", "cpu", *wrong], Clock())
        assert stop.value.code == 2
    assert "--rounds must be at least 7, got 3" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cuda.main([], Clock()) == 2
    assert "no GPU" in capsys.readouterr().err
