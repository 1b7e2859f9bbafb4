"""The training scripts on tiny settings: every method runs, resuming gives the same bits, two experiments
reach what they claim.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training_data import write_mnist

from training import char_lstm, cifar10, data, halp_figure1, halp_kappa, mnist
from training.common import comparison
from training.common.methods import Method, Settings
from training.common.runs import Interrupted, RunError, RunFolder, drive
from training.common.trainer import Schedule, Trainer, measure
from training.least_squares import LeastSquares, conditioned_problem
from training.models import CharLSTM, CompactResNet

ROOT = Path(__file__).parents[2]
ALL = ["sgd", "momentum", "svrg", "lp-sgd-8", "lp-svrg-8", "halp-8", "halp-4", "bit-centred-6"]
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with a short text, MNIST of 300 and 20 pictures, and CIFAR-10 of a few."""
    (tmp_path / "tinyshakespeare").mkdir()
    r = np.random.default_rng(0)
    words = ["so ", "shall ", "we ", "meet, ", "again\n"]
    text = "".join(words[k] for k in r.integers(0, 5, 700))
    (tmp_path / "tinyshakespeare" / "input.txt").write_text(text)
    write_mnist(tmp_path, "train", 300)
    write_mnist(tmp_path, "t10k", 20)
    return tmp_path


def pictures(count: int) -> data.Labelled:
    r = np.random.default_rng(count)
    x = torch.from_numpy(r.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8))
    return data.Labelled(x, torch.arange(count) % 10)


def lstm(method: str, text: data.Text, option: Any = "I") -> Trainer:
    torch.manual_seed(1)
    train = char_lstm.Windows(text.train, 10, CPU)
    model = CharLSTM(len(text.vocabulary), 4, 6)
    settings = Settings(0.5, mu=2.0, option=option)
    return Trainer(
        model, train, lambda m: {"loss": measure(m, train, 50)[0]}, Method.parse(method), settings,
        Schedule(2, 30, centre_every=0.4), seed=3,
    )  # fmt: skip


def resnet(method: str, _: data.Text) -> Trainer:
    torch.manual_seed(1)
    train = cifar10.Pictures(pictures(40), 8, CPU)
    settings = Settings(0.05, mu=2.0, weight_decay=1e-3)
    return Trainer(
        CompactResNet(2), train, lambda m: {"loss": measure(m, train, 50)[0]}, Method.parse(method),
        settings, Schedule(2, 10, centre_every=0.5, decay_at=(1,)), seed=3, augment=True,
    )  # fmt: skip


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize(
    "make, method", [(lstm, m) for m in ALL] + [(resnet, m) for m in ALL[1:6:2]]
)
def test_resumed_runs_have_the_same_bits(
    make: Any, method: str, folder: Path, tmp_path: Path
) -> None:
    """Stopped in the middle of an epoch and of a centre, and loaded into new objects."""
    text = data.shakespeare(folder)
    whole = make(method, text)
    expected = drive(whole, RunFolder(tmp_path / "a", {}, False), 1e9, lambda: False)["rows"]
    first = make(method, text)
    cut = first.per_epoch + 1
    assert 0 < cut < first.total_steps
    with pytest.raises(Interrupted, match=f"stopped at step {cut} of {first.total_steps}"):
        drive(first, RunFolder(tmp_path / "b", {}, False), 1e9, lambda: first.steps == cut)
    torch.manual_seed(99)
    second = make(method, text)
    found = drive(second, RunFolder(tmp_path / "b", {}, True), 1e9, lambda: False)["rows"]
    assert without_time(found) == without_time(expected) and len(found) == 2
    for p, q in zip(whole.plain.parameters(), second.plain.parameters(), strict=True):
        assert torch.equal(p, q)
    assert found[-1]["running_loss"] < 5 and np.isfinite(found[-1]["loss"])


def test_methods_start_from_the_same_weights_and_see_the_same_batches(folder: Path) -> None:
    text = data.shakespeare(folder)
    one, two = lstm("sgd", text), lstm("halp-8", text)
    for p, q in zip(one.plain.parameters(), two.plain.parameters(), strict=True):
        assert torch.equal(p, q)
    one.advance(), two.advance()
    assert torch.equal(one.order, two.order) and float(one.loss_sum) == float(two.loss_sum)
    assert two.gradients == len(two.examples) + 2 * one.gradients


def test_augmentation_shifts_and_mirrors() -> None:
    train = cifar10.Pictures(pictures(64), 32, CPU)
    x, y = train.batch(torch.arange(64), torch.Generator().manual_seed(0))
    assert torch.equal(y, train.y) and not torch.equal(x, train.x)
    padded = torch.nn.functional.pad(train.x, (4, 4, 4, 4))
    kinds = set()
    for made, source in zip(x, padded, strict=True):
        found = [
            (down, right, mirror)
            for down in range(9)
            for right in range(9)
            for mirror in (False, True)
            if torch.equal(
                made.flip(-1) if mirror else made, source[:, down : down + 32, right : right + 32]
            )
        ]
        assert len(found) == 1
        kinds.update(found)
    assert len(kinds) > 40 and {m for _, _, m in kinds} == {False, True}


def test_a_signal_saves_and_a_second_call_goes_on(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The script itself: files, refusal without --resume, table, plot."""
    pytest.importorskip("matplotlib")
    call = ["--data", str(folder), "--methods", "halp-8", "--embedding", "4", "--hidden", "6",
            "--length", "10", "--batch", "30", "--epochs", "2", "--mu", "2"]  # fmt: skip
    steady = char_lstm.main([*call, "--out", str(tmp_path / "a")])
    advance = Trainer.advance

    def interrupted(self: Trainer) -> Any:
        if self.steps == self.per_epoch + 1:
            signal.raise_signal(signal.SIGTERM)
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", interrupted)
    with pytest.raises(SystemExit, match=r"training\.char_lstm: stopped at step 12 of 20"):
        char_lstm.main([*call, "--out", str(tmp_path / "b")])
    monkeypatch.undo()
    run = tmp_path / "b" / "halp-8-seed0"
    assert (run / "checkpoint.pt").exists() and not (run / "result.json").exists()
    with pytest.raises(SystemExit, match="holds a run already; pass --resume"):
        char_lstm.main([*call, "--out", str(tmp_path / "b")])
    with pytest.raises(SystemExit, match=r"made with mu = 2\.0, now it is 3\.0"):
        char_lstm.main([*call, "--mu", "3", "--out", str(tmp_path / "b"), "--resume"])
    picture = tmp_path / "curves.png"
    found = char_lstm.main(
        [*call, "--out", str(tmp_path / "b"), "--resume", "--plot", str(picture)]
    )
    assert without_time(found["halp-8"][0]) == without_time(steady["halp-8"][0])
    assert picture.stat().st_size > 10_000
    trained = torch.load(run / "checkpoint.pt", weights_only=True)["process"]
    assert trained["counters"][0] == 20 and "head.weight" in trained["model"]
    with (run / "metrics.csv").open() as f:
        assert [row["epoch"] for row in csv.DictReader(f)] == ["1", "2"]
    assert json.loads((run / "result.json").read_text())["config"]["mu"] == 2.0
    assert "| halp-8 | " in capsys.readouterr().out


def test_refusals(folder: Path, tmp_path: Path) -> None:
    for arguments, text in (
        (["--methods", "adam"], "unknown method 'adam', expected one of: sgd, momentum"),
        (["--methods", "halp-17"], "B is 2 to 16"),
        (["--methods", "halp-4", "--mu", "auto"], "mu='auto' needs 8 bits or more"),
        (["--batch", "10000"], "batch must be at most the"),
        (["--length", "100000"], "has no window of 100000"),
    ):
        with pytest.raises(SystemExit, match=text):
            char_lstm.main(
                ["--data", str(folder), "--out", str(tmp_path / "r"), "--resume", *arguments]
            )
    with pytest.raises(SystemExit, match="CIFAR-10: neither"):
        cifar10.main(["--data", str(folder), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"the sweep has svrg.*got 'sgd'"):
        halp_kappa.main(["--methods", "sgd", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="unknown method 'halp-5'"):
        halp_figure1.main(["--methods", "halp-5", "--out", str(tmp_path)])
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "checkpoint.pt").write_bytes(b"PK")
    with pytest.raises(RunError, match="cannot be read"):
        RunFolder(broken, {}, True).load()


def test_mnist_script(folder: Path, tmp_path: Path) -> None:
    """Every family on 300 pictures: 16-bit offsets go as far as float ones."""
    methods = ["sgd", "svrg", "lp-svrg-8", "halp-16", "lm-svrg", "lm-halp-16", "lm-halp-8"]
    results = mnist.main(["--data", str(folder), "--out", str(tmp_path / "m"), "--epochs", "8",
                          "--l2", "1", "--methods", *methods])  # fmt: skip
    last = {name: found[0][-1]["relative"] for name, found in results.items()}
    assert last["lm-halp-16"] < 1e-5 and last["lm-svrg"] < 1e-5
    assert last["halp-16"] < 0.3 and abs(last["halp-16"] / last["svrg"] - 1) < 0.3
    epochs = comparison.reached(results, "relative", 1e-5)
    assert "sgd -" in epochs and "lm-svrg -" not in epochs


def test_figure1_script(tmp_path: Path) -> None:
    """HALP goes with SVRG where 8-bit LP-SVRG has stopped; integers for linear models end at rounding."""
    pytest.importorskip("sklearn")
    call = ["--problem", "paper", "--out", str(tmp_path / "f"), "--epochs", "4", "--steps", "1000"]
    results = halp_figure1.main([*call, "--methods", "svrg", "lp-svrg-8", "halp-16"])
    last = {name: found[0][-1]["relative"] for name, found in results.items()}
    assert last["halp-16"] < 1.3 * last["svrg"]
    assert last["lp-svrg-8"] > 1.5 * last["svrg"]
    integers = halp_figure1.main([*call[2:4], "--problem", "noisy", "--methods", "lm-halp-8"])
    assert len(integers["lm-halp-8"][0]) == 60
    assert integers["lm-halp-8"][0][-1]["relative"] < 1e-13


def test_integer_runs_resume(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = ["--problem", "noisy", "--epochs", "9", "--methods", "lm-halp-8", "--out"]
    whole = halp_figure1.main([*call, str(tmp_path / "a")])
    process = halp_figure1.IntegerHalp
    advance = process.advance

    def stopping(self: Any) -> Any:
        if self.steps == 4:
            signal.raise_signal(signal.SIGINT)
        return advance(self)

    monkeypatch.setattr(process, "advance", stopping)
    with pytest.raises(SystemExit, match="stopped at step 5 of 9"):
        halp_figure1.main([*call, str(tmp_path / "b")])
    monkeypatch.undo()
    found = halp_figure1.main([*call, str(tmp_path / "b"), "--resume"])
    assert without_time(found["lm-halp-8"][0]) == without_time(whole["lm-halp-8"][0])


def test_condition_numbers() -> None:
    """Sweep K in short: 8-bit HALP within 3x of SVRG at both ends; LP-SVRG is at its floor by then."""

    def run(name: str, kappa: float, box: float | None) -> list[float]:
        problem = conditioned_problem(kappa)
        point = halp_kappa.Point(Method.parse(name), kappa, 0.3, box)
        process = LeastSquares(
            problem, point.method, point.settings(problem.smoothness, 800), 6, 800, seed=0
        )
        rows = [process.advance() for _ in range(process.total_steps)]
        return [row["gradient_norm"] for row in rows if row is not None]

    floors = []
    for kappa, box in ((1.0, 10.0), (1000.0, 3.0)):
        svrg, halp = run("svrg", kappa, None), run("halp-8", kappa, box)
        fixed = run("lp-svrg-8", kappa, None)
        assert halp[-1] <= 3 * svrg[-1] and svrg[-1] < fixed[-1]
        floors.append(min(fixed[2:]))
        assert max(fixed[2:]) < 3 * floors[-1]
    assert floors[1] < floors[0]


def test_kappa_script(tmp_path: Path) -> None:
    """The grid, and the best of it by condition number; a run that diverges counts as infinite."""
    call = ["--epochs", "2", "--steps", "30", "--out", str(tmp_path / "k"), "--kappas", "1", "10"]
    found = halp_kappa.main([*call, "--methods", "svrg", "halp-8", "halp-4", "lp-svrg-16"])
    assert list(found) == ["svrg", "halp-8", "halp-4", "lp-svrg-16"]
    for by_kappa in found.values():
        assert list(by_kappa) == [1.0, 10.0] and all(0 < v < 20 for v in by_kappa.values())
    assert len(list((tmp_path / "k").iterdir())) == 2 * (2 + 4 + 4 + 2)
    problem = conditioned_problem(1.0)
    wild = LeastSquares(problem, Method("sgd"), Settings(1e3), 2, 20, seed=0)
    rows = [wild.advance() for _ in range(40)]
    assert rows[19]["gradient_norm"] == rows[39]["gradient_norm"] == float("inf")


@pytest.mark.dist
def test_two_processes_train_as_one(folder: Path, tmp_path: Path) -> None:
    """The same global batches: the same figures up to rounding."""
    call = ["-m", "training.char_lstm", "--data", str(folder), "--methods", "sgd", "halp-8",
            "--embedding", "4", "--hidden", "6", "--length", "10", "--batch", "30", "--epochs", "1",
            "--mu", "2", "--out"]  # fmt: skip
    one = char_lstm.main([*call[2:], str(tmp_path / "one")])
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launch, *call, str(tmp_path / "two")],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("sgd", "halp-8"):
        rows = json.loads((tmp_path / "two" / f"{name}-seed0" / "result.json").read_text())["rows"]
        for key in ("running_loss", "train_loss", "validation_loss"):
            assert rows[-1][key] == pytest.approx(one[name][0][-1][key], rel=1e-3)
        assert rows[-1]["gradient_epochs"] == one[name][0][-1]["gradient_epochs"]
