"""The command line as a newcomer meets it: every kind of file in every command, wrong usage, odd data."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from torchext.cli import main
from torchext.linear import load_model

pytest.importorskip("sklearn")
RNG = np.random.default_rng(12)
X = RNG.normal(size=(400, 3))
Y = X @ np.array([1.0, 2.0, -3.0]) + 0.5 * RNG.normal(size=400)


def write(path: Path, delimiter: str = ",", columns: str = "y a b c") -> Path:
    """The table with its columns in any order; a column ``id`` holds text."""
    found = {
        "y": Y,
        "a": X[:, 0],
        "b": X[:, 1],
        "c": X[:, 2],
        "id": [f"row {k}" for k in range(400)],
    }
    names = columns.split()
    lines = [names, *zip(*(np.asarray(found[name]).tolist() for name in names), strict=True)]
    text = "".join(delimiter.join(map(str, line)) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def parquet(path: Path) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"y": Y, "a": X[:, 0], "b": X[:, 1], "c": X[:, 2]}), path)
    return path


FILES = {
    "comma": lambda folder: write(folder / "t.csv"),
    "semicolon": lambda folder: write(folder / "t.csv", ";"),
    "tab, gzip": lambda folder: write(folder / "t.tsv.gz", "\t"),
    "parquet": lambda folder: parquet(folder / "t.data"),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_command_reads_every_kind_of_table(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, store = str(FILES[kind](tmp_path)), str(tmp_path / "t.tq")
    model, exact = str(tmp_path / "m.st"), str(tmp_path / "r.st")
    assert main(["quantize", data, store, "--target", "y"]) == 0
    assert main(["train", data, "--target", "0", "--out", model]) == 0
    assert "on the full-precision training rows" in capsys.readouterr().out
    assert main(["train", data, "--target", "y", "--model", "ridge", "--out", exact]) == 0
    assert "over the full-precision rows" in capsys.readouterr().out
    assert load_model(exact).feature_names_in_.tolist() == ["a", "b", "c"]
    for path in (model, exact):
        assert main(["predict", path, data, "--target", "y"]) == 0
        assert "R2 0.9" in capsys.readouterr().err
    assert main(["bench", data, "--target", "y", "--bits", "2", "--epochs", "3"]) == 0


def test_predict_ignores_other_columns_and_names_missing_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tmp_path / "m.st")
    assert main(["train", str(write(tmp_path / "t.csv")), "--target", "y", "--out", model]) == 0
    capsys.readouterr()
    assert main(["predict", model, str(write(tmp_path / "plain.csv", columns="a b c"))]) == 0
    plain = capsys.readouterr().out
    assert main(["predict", model, str(write(tmp_path / "ids.csv", ";", "c id y b a"))]) == 0
    assert capsys.readouterr().out == plain
    assert main(["predict", model, str(write(tmp_path / "few.csv", columns="a c"))]) == 1
    assert "needs 3 feature columns, the file has 2; missing: b" in capsys.readouterr().err


def test_a_column_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write(tmp_path / "t.csv"))
    for command in (["quantize", data, str(tmp_path / "t.tq")], ["bench", data]):
        assert main([*command, "--target", "z"]) == 1
        text = capsys.readouterr().err
        assert "t.csv: there is no column 'z'; the columns are y, a, b, c" in text


@pytest.mark.parametrize(
    "command, code, text",
    [
        ("train DATA --target y --out FOLDER", 1, "is a folder, the name of a file is needed"),
        ("train DATA --target y --out m.st --plot nowhere/p.png", 1, "nowhere does not exist"),
        ("train DATA --target y --out m.st --plot p.xyz", 1, "ending must be one of"),
        ("train DATA --target y --out m.st --json nowhere/j", 1, "nowhere does not exist"),
        ("bench DATA --target y --json nowhere/j", 1, "nowhere does not exist"),
        ("quantize DATA FOLDER --target y", 1, "is a folder"),
        ("quantize DATA t.tq --target y --bits 32", 2, "--bits 32 .* train on the table"),
        ("quantize DATA t.tq --target y --bits 16 --sampling double", 2, "needs --bits 2 to 8"),
        ("train DATA --target y --out m.st --bits 1 --sampling double", 2, "needs --bits 2 to 8"),
        ("train DATA --target y --out m.st --model-bits 9", 2, "must be 2 to 8, or 32"),
        ("train DATA --target y --out m.st --gradient-bits 1", 2, "must be 2 to 8, or 32"),
    ],
)
def test_what_cannot_end_well_never_starts(
    command: str,
    code: int,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "p.xyz" in command:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    write(tmp_path / "t.csv")
    before = sorted(tmp_path.iterdir())
    words = command.replace("DATA", "t.csv").replace("FOLDER", "folder").split()
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == "" and re.search(text, err)
    assert sorted(tmp_path.iterdir()) == before


def bench(path: Path, *words: str) -> tuple[int, dict]:  # type: ignore[type-arg]
    facts = path.with_suffix(".json")
    code = main(
        ["bench", str(path), "--target", "y", "--epochs", "9", "--json", str(facts), *words]
    )
    return code, json.loads(facts.read_text()) if code == 0 else {}


def test_bench_is_fair_and_says_what_auto_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """float32 has the anchor of the others; what auto takes is one row, not two."""
    path = write(tmp_path / "t.csv")
    code, found = bench(path, "--bits", "1", "4", "4", "--sampling", "auto", "corrected", "double")
    assert code == 0
    names = [(row["name"].removesuffix(" (= auto)"), row["bits"]) for row in found["rows"]]
    kinds = ("nearest", "corrected", "double")
    assert names == [("float32", 32), *((k, 1) for k in kinds[:2]), *((k, 4) for k in kinds)]
    assert sum(row["name"].endswith(" (= auto)") for row in found["rows"]) == 2
    assert np.ptp([row["anchor_ratio"] for row in found["rows"]]) < 1e-6
    assert found["rows"][0]["loss_ratio"] < 1.01
    assert "double is left out at --bits 1" in capsys.readouterr().err
    code, found = bench(path, "--bits", "4", "--anchor", "none")
    assert code == 0 and {row["anchor_ratio"] for row in found["rows"]} == {None}


def test_bench_where_the_optimum_is_zero_or_nothing_varies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n" + "".join(f"{k},{k * k % 7},{2 * k}\n" for k in range(100)))
    code, found = bench(path, "--bits", "4")
    text = capsys.readouterr().out
    assert code == 0 and "F* is 0: losses are over the variance of the target" in text
    assert all(0 <= row["loss_ratio"] < 1e-6 for row in found["rows"])
    assert max(map(len, text.splitlines())) < 160
    path.write_text("a,b,y\n" + "".join(f"{k},{k * k % 7},5\n" for k in range(100)))
    assert bench(path)[0] == 1
    assert "column y is constant, nothing to compare" in capsys.readouterr().err
