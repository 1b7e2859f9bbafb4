"""The script behind the page on optimal levels, its pictures, and what it finds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from fixed_points import Decoded, Exact

pytest.importorskip("matplotlib")
from torchext.data import QuantizedDataset
from torchext.viz import plot_bits, plot_levels
from training.linear import level_study, optimal_levels


def test_the_script_writes_tables_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optimal_levels.main(
        ["--data", "cpusmall", "--methods", "nearest", "double", "--bits", "2", "3", "--seeds", "1",
         "--rows", "400", "--out", str(tmp_path)]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert (tmp_path / "results.md").read_text() in printed
    with open(tmp_path / "results.csv") as file:
        rows = list(csv.DictReader(file))
    # uniform levels from 2 bits to the most a method has, the others as asked for
    assert len(rows) == (7 + 2 * 2) + (5 + 2 * 2)
    assert {r["levels"] for r in rows} == set(level_study.LEVELS)
    assert all(
        int(r["stored_bits"]) == int(r["bits"]) + 2 * (r["method"] == "double") for r in rows
    )
    for picture in ("optimal-levels.png", "loss-bits.png"):
        assert (tmp_path / picture).stat().st_size > 10_000
    table = [line for line in printed.splitlines() if line.startswith("| nearest | optimal")]
    assert len(table) == 1 and "(= " in table[0]  # worth more uniform bits than it has


def test_usage_errors_and_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--rows", "10"], ["--seeds", "0"], ["--bits", "9"], ["--data", "mnist"]):
        with pytest.raises(SystemExit) as error:
            optimal_levels.main([*wrong, "--out", str(tmp_path / "none")])
        assert error.value.code == 2
    with pytest.raises(SystemExit):
        optimal_levels.main(["--help"])
    assert "How to read the tables" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("sampling", ["nearest", "corrected", "double"])
def test_fixed_points_are_those_of_the_estimators(sampling: str) -> None:
    problem = level_study.Problem("cpusmall", 2000)
    store = QuantizedDataset.from_arrays(
        problem.x, problem.y, bits=4, sampling=sampling, anchor="none", random_state=1
    )
    exact = Exact.of(store, problem.x, problem.alpha)
    expected = exact.ratio(Decoded.of(store).solve(problem.alpha))
    assert problem.ratio(store) == pytest.approx(expected, rel=1e-6)


def test_an_indefinite_matrix_is_no_fixed_point() -> None:
    problem = level_study.Problem("cadata", 300)
    store = QuantizedDataset.from_arrays(
        problem.x, problem.y, bits=3, sampling="corrected", levels="uniform", anchor="none", random_state=0
    )  # fmt: skip
    store.noise[0] *= 1e6
    store.noise[1:] += 1e-9
    assert problem.ratio(store) is None
    found = [level_study.Point("cadata", "corrected", "uniform", 3, 3, 0, None)]
    assert level_study.excess(found, "cadata", "corrected", "uniform", 3) is None
    assert "indefinite" in optimal_levels.loss_table(found, "cadata", [3])


def test_equal_bits_interpolates_the_logarithm() -> None:
    uniform = [(2, 0.1), (3, 0.01), (4, 0.0001)]
    found = [level_study.Point("d", "m", "uniform", b, b, 0, 1 + e) for b, e in uniform]
    for excess, expected in ((0.1, 2.0), (0.01, 3.0), (0.001, 3.5), (1e-5, None), (0.2, None)):
        mine = [level_study.Point("d", "m", "optimal", 2, 2, 0, 1 + excess)]
        assert level_study.equal_bits([*found, *mine], "d", "m", "optimal", 2) == (
            None if expected is None else pytest.approx(expected, abs=1e-6)
        )


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("uniform", 0.99, 1.05), ("normal", 1.3, 1.8), ("exponential", 2.2, 4.0), ("lognormal", 3.5, 20.0)],
)  # fmt: skip
def test_variance_of_rounding_at_three_bits(kind: str, low: float, high: float) -> None:
    """Published effect: none on uniform values, 1.3 to 1.8 on normal, more on skewed ones."""
    assert low <= level_study.variance_ratio(kind, 3) <= high


def test_optimal_levels_save_bits_on_skewed_columns_only() -> None:
    """Log-normal columns, nearest rounding: 3 optimal bits beat 4 uniform ones; uniform columns: no gain."""
    found = [
        point
        for name in ("lognormal", "uniform")
        for point in level_study.points([name], ["nearest"], ["uniform", "optimal"], [3, 4, 5], 1, 4000)
    ]  # fmt: skip

    def excess(name: str, levels: str, bits: int) -> float:
        value = level_study.excess(found, name, "nearest", levels, bits)
        assert value is not None
        return value

    assert excess("lognormal", "optimal", 3) <= excess("lognormal", "uniform", 4)
    assert excess("lognormal", "optimal", 4) <= 1.3 * excess("lognormal", "uniform", 5)
    assert excess("uniform", "optimal", 4) >= 0.5 * excess("uniform", "uniform", 4)


def test_pictures_have_the_levels_and_the_curves(tmp_path: Path) -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 20)))
    tables = {"a": torch.tensor([-1.0, 0.0, 1.0]), "b": torch.tensor([0.0, 0.0])}
    figure = plot_levels(values, tables, tmp_path / "levels.svg", title="t", xlabel="x")
    density, ticks = figure.axes
    assert [len(c.get_segments()) for c in ticks.collections] == [3, 1]
    assert len(density.patches) == 200 and (tmp_path / "levels.svg").exists()
    curves = {("nearest", "uniform"): [(2, 0.1), (4, 0.01)], ("nearest", "optimal"): [(2, 0.05)]}
    figure = plot_bits({"one": curves, "two": curves}, tmp_path / "bits.png")
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]
    assert all(axes.get_yscale() == "log" for axes in figure.axes)
    assert len(plot_bits({"one": curves}).axes) == 1
