"""The command line, in process and as a subprocess: results, exit codes, error texts, interruption."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from torchext.cli import main
from torchext.linear import SGDRegressor, load_model, save_model

ROOT = Path(__file__).resolve().parents[2]


def write_csv(path: Path, X: np.ndarray, y: np.ndarray, *, header: bool = True) -> Path:
    """Target first, then the features; gzip by the name's ending."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as f:
        out = csv.writer(f)
        if header:
            out.writerow(["price", *(f"c{j}" for j in range(X.shape[1]))])
        for label, row in zip(y.tolist(), X.tolist(), strict=True):
            out.writerow([label, *row])
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(1500, 5))
    y = X @ np.array([1.0, -2.0, 0.5, 3.0, 0.0]) + 7.0 + 0.1 * rng.normal(size=1500)
    return write_csv(tmp_path_factory.mktemp("cli") / "houses.csv", X, y)


@pytest.fixture(scope="module")
def store(table: Path) -> Path:
    path = table.with_name("houses.tq")
    assert main(["quantize", str(table), str(path), "--target", "price", "--bits", "4"]) == 0
    return path


@pytest.fixture(scope="module")
def model(store: Path) -> Path:
    path = store.with_name("price.safetensors")
    assert main(["train", str(store), "--out", str(path), "--alpha", "0"]) == 0
    return path


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["--help"],
        *([c, "--help"] for c in ("quantize", "train", "predict", "info", "bench")),
    ):
        assert main(arguments) == 0
        text = capsys.readouterr().out
        assert ("torchext " in text and "example" in text.lower()) or "from a table" in text
    assert main([]) == 2
    assert main(["fly"]) == 2
    assert main(["train"]) == 2


def test_quantize_reports_what_it_chose(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, facts = tmp_path / "a.tq", tmp_path / "a.json"
    assert main(["quantize", str(table), str(out), "--target", "price", "--json", str(facts)]) == 0
    text = capsys.readouterr().out
    for needed in (
        "4 bits per value",
        "draws counted",
        "nearest",
        "layout tile4",
        "than float32",
        "x0",
    ):
        assert needed in text
    found = json.loads(facts.read_text())
    assert (
        found["rows"] == 1500
        and found["columns"] == 5
        and found["file_bytes"] == out.stat().st_size
    )


@pytest.mark.parametrize(("given", "counted"), [("all", "1,500"), ("200", "200")])
def test_quantize_counts_the_rows_it_is_told_to(
    given: str, counted: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "a.tq")
    assert main(["quantize", str(table), out, "--target", "price", "--level-rows", given]) == 0
    assert f"levels from {counted} rows" in capsys.readouterr().out


def test_same_input_gives_the_same_file(table: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.tq", tmp_path / "b.tq"]
    for file in files:
        assert (
            main(["quantize", str(table), str(file), "--target", "0", "--bits", "2", "--key", "5"])
            == 0
        )
    assert files[0].read_bytes() == files[1].read_bytes()


def test_train_writes_model_plot_and_report(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    out, plot, facts = tmp_path / "m.safetensors", tmp_path / "m.png", tmp_path / "m.json"
    assert (
        main(["train", str(store), "--out", str(out), "--plot", str(plot), "--json", str(facts)])
        == 0
    )
    text = capsys.readouterr().out
    for needed in (
        "bits per value, all draws counted",
        "bytes per epoch",
        "penalty",
        "rows",
        "key",
        "x0",
    ):
        assert needed in text
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert json.loads(facts.read_text())["report"]["bits_per_value"] == 4
    assert out.exists() and not Path(f"{out}.checkpoint").exists()


@pytest.mark.parametrize("source", ["table", "store"])
def test_exact_models(
    source: str, table: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "exact.safetensors", table if source == "table" else store
    target = ["--target", "price"] if source == "table" else []
    assert main(["train", str(data), *target, "--model", "ridge", "--out", str(out)]) == 0
    assert ("only a store is given" in capsys.readouterr().err) == (source == "store")
    model = load_model(out)
    np.testing.assert_allclose(model.coef_, [1.0, -2.0, 0.5, 3.0, 0.0], atol=0.02)
    assert main(["predict", str(out), str(table), "--target", "price"]) == 0
    assert "R2 0.99" in capsys.readouterr().err


def test_exact_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(900, 4))
    y = np.array(["low", "middle", "high"])[np.digitize(X[:, 0], [-0.5, 0.5])]
    data, out = write_csv(tmp_path / "c.csv", X, y), tmp_path / "c.safetensors"
    words = ["train", str(data), "--target", "price", "--model", "logistic", "--out", str(out)]
    assert main(words) == 0
    assert sorted(load_model(out).classes_) == ["high", "low", "middle"]
    assert main(["predict", str(out), str(data), "--target", "price"]) == 0
    assert "accuracy" in capsys.readouterr().err


def test_predict_by_name_whatever_the_order(
    model: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(model), str(table), "--target", "price"]) == 0
    first = capsys.readouterr()
    score = float(first.err.split("R2 ")[1].split(",")[0])
    assert score > 0.99
    rows = list(csv.reader(table.read_text().splitlines()))
    shuffled = tmp_path / "shuffled.csv"
    with open(shuffled, "w", newline="") as f:
        csv.writer(f).writerows([[row[j] for j in (3, 1, 5, 2, 4)] for row in rows])
    out = tmp_path / "p.csv"
    assert main(["predict", str(model), str(shuffled), "--out", str(out)]) == 0
    assert out.read_text() == first.out


def test_gzip_without_header(table: Path, tmp_path: Path) -> None:
    rows = list(csv.reader(table.read_text().splitlines()))[1:]
    values = np.array(rows, dtype=np.float64)
    file = write_csv(tmp_path / "plain.csv.gz", values[:, 1:], values[:, 0], header=False)
    out = tmp_path / "m.safetensors"
    assert main(["train", str(file), "--target", "0", "--bits", "3", "--out", str(out)]) == 0
    assert (
        main(["predict", str(out), str(file), "--target", "0", "--out", str(tmp_path / "p.csv")])
        == 0
    )


def test_classification(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(900, 4))
    names = np.array(["cat", "dog", "eel"])
    y = names[np.argmax(X[:, :3], axis=1)]
    file = write_csv(tmp_path / "animals.csv", X, y)
    out = tmp_path / "m.safetensors"
    for loss in ("squared", "logistic"):
        assert (
            main(["train", str(file), "--target", "price", "--loss", loss, "--out", str(out)]) == 0
        )
        capsys.readouterr()
        assert main(["predict", str(out), str(file), "--target", "price"]) == 0
        text = capsys.readouterr()
        assert set(text.out.split()[1:]) <= set(names.tolist())
        assert float(text.err.split("accuracy ")[1].split()[0]) > 0.8
    assert main(["predict", str(out), str(file), "--proba", "--out", str(tmp_path / "p.csv")]) == 0
    table = np.loadtxt(tmp_path / "p.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table.sum(axis=1), 1.0, rtol=1e-9)


def test_info(store: Path, model: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(store), "--verify"]) == 0
    assert "1500" in capsys.readouterr().out
    assert main(["info", str(model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["estimator"] == "SGDRegressor" and facts["feature_names"] == [
        f"c{j}" for j in range(5)
    ]
    assert main(["info", str(table)]) == 1
    assert "quantize" in capsys.readouterr().err


def test_info_finds_damage(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(store.read_bytes())
    data[-100] ^= 1
    broken = tmp_path / "broken.tq"
    broken.write_bytes(bytes(data))
    assert main(["info", str(broken), "--verify"]) == 1
    assert "broken.tq" in capsys.readouterr().err
    broken.write_bytes(bytes(data[: len(data) // 2]))
    assert main(["info", str(broken)]) == 1


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("price,c0,c1\n1,2,3\n4,x,6\n", ("3", "c0")),
        ("price,c0,c1\n1,2,3\n4,5\n", ("3",)),
        ("price,c0,c1\n1,2,nan\n", ("2", "c1")),
        ("price,c0,c1\n1,2,\n", ("2", "c1")),
        ("", ()),
        ("price,c0,c1\n", ()),
    ],
)
def test_data_errors_name_the_place(
    text: str, where: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    out = tmp_path / "bad.tq"
    commands = (
        ["quantize", str(file), str(out), "--target", "price"],
        ["bench", str(file), "--target", "price"],
    )
    for command in commands:
        assert main(command) == 1
        message = capsys.readouterr().err
        assert (
            "bad.csv" in message and "Traceback" not in message and len(message.splitlines()) == 1
        )
        for part in where:
            assert part in message
    assert not out.exists() and list(tmp_path.iterdir()) == [file]


def test_usage_errors(
    store: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "m.safetensors")
    assert main(["train", str(table), "--out", out]) == 2
    assert "--target" in capsys.readouterr().err
    assert main(["train", str(store), "--out", out, "--bits", "2"]) == 2
    assert "--bits" in capsys.readouterr().err
    assert main(["train", str(store), "--out", out, "--level-rows", "all"]) == 2
    assert "--level-rows" in capsys.readouterr().err
    assert main(["quantize", str(table), out, "--target", "price", "--level-rows", "some"]) == 2
    assert "--level-rows" in capsys.readouterr().err
    given = ["train", str(table), "--target", "price", "--out", out, "--level-rows", "all"]
    assert main([*given, "--anchor", "2"]) == 2
    assert "--level-rows: belongs to stores" in capsys.readouterr().err
    assert main([*given, "--model", "ridge"]) == 2
    assert "--model ridge chooses its own codes" in capsys.readouterr().err
    assert (
        main(["quantize", str(table), str(tmp_path / "a.tq"), "--target", "price", "--bits", "9"])
        == 2
    )
    assert main(["train", str(store), "--out", str(tmp_path / "no" / "m.safetensors")]) == 1
    assert main(["train", str(tmp_path / "none.tq"), "--out", out]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main(["quantize", str(table), str(tmp_path / "a.tq"), "--target", "nobody"]) == 1
    assert "nobody" in capsys.readouterr().err


def test_bench_lists_nearest_and_float32_beside_everything(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = tmp_path / "b.json"
    command = [
        "bench",
        str(table),
        "--target",
        "price",
        "--bits",
        "4",
        "--sampling",
        "double",
        "--epochs",
        "3",
    ]
    assert main([*command, "--baseline", "sgd-fp32", "sklearn", "--json", str(facts)]) == 0
    assert "all draws" in capsys.readouterr().out
    names = [row["name"] for row in json.loads(facts.read_text())["rows"]]
    assert names == ["float32", "nearest", "double", "sklearn SGDRegressor"]


def run_module(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torchext", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        **more,
    )  # type: ignore[call-overload, no-any-return]


def test_module_is_diagnosis_or_command_line(table: Path) -> None:
    assert "cpu isa" in run_module().stdout
    done = run_module("info", str(table))
    assert done.returncode == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_a_usable_checkpoint(
    store: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    """Killed in the middle, resumed: the same model as an uninterrupted run; the checkpoint predicts."""
    out, whole = tmp_path / "m.safetensors", tmp_path / "whole.safetensors"
    command = ["train", str(store), "--alpha", "0", "--epochs", "3000", "--penalty", "none"]
    settings = [*command, "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "torchext", *settings],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    checkpoint = Path(f"{out}.checkpoint")
    limit = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, stop)
    _, message = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip("the run was over before the signal came")
    assert process.returncode == 130, message
    assert "--resume" in message and "Traceback" not in message
    assert not out.exists()
    assert load_model(checkpoint).coef_.shape == (5,)
    assert main([*settings, "--resume"]) == 0
    assert not checkpoint.exists()
    assert main([*command, "--out", str(whole)]) == 0
    np.testing.assert_array_equal(load_model(out).coef_, load_model(whole).coef_)


def test_model_file_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(300, 3))
    fitted = SGDRegressor(bits=4, random_state=0).fit(X, X @ np.ones(3))
    save_model(fitted, tmp_path / "m.safetensors", target="t")
    again = load_model(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    assert again.get_params()["bits"] == 4
    (tmp_path / "x.safetensors").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        load_model(tmp_path / "x.safetensors")
    with pytest.raises(TypeError, match="estimator"):
        save_model(object(), tmp_path / "y.safetensors")


def test_train_with_a_centre(table: Path, store: Path, tmp_path: Path) -> None:
    out, facts = tmp_path / "m.safetensors", tmp_path / "m.json"
    arguments = ["--target", "price", "--out", str(out), "--json", str(facts), "--alpha", "0"]
    for more in (["halp", "--z-bits", "16", "--mu", "0.05"], ["svrg", "--bits", "32"]):
        assert main(["train", str(table), *arguments, "--solver", *more]) == 0
        told = json.loads(facts.read_text())
        assert told["report"]["solver"] == more[0] and told["train_r2"] > 0.99
        assert told["report"]["gradient_norm"] <= 1e-5
        assert isinstance(load_model(out), SGDRegressor)
    options = ["--target", "price", "--bits", "8", "--levels", "symmetric", "--sampling", "nearest"]
    grid = tmp_path / "grid.tq"
    assert main(["quantize", str(table), str(grid), *options]) == 0
    told = ["--out", str(out), "--json", str(facts)]
    assert main(["train", str(grid), *told, "--solver", "halp", "--alpha", "0"]) == 0
    assert json.loads(facts.read_text())["report"]["gradient_norm"] <= 1e-5
    assert isinstance(load_model(out), SGDRegressor)
    for wrong in (
        [str(store), "--out", str(out), "--solver", "halp", "--bits", "16"],
        [str(table), *arguments, "--solver", "halp", "--mu", "-1"],
        [str(table), *arguments, "--solver", "halp", "--model", "ridge"],
        [str(table), *arguments, "--solver", "halp", "--sampling", "double"],
    ):
        try:
            code = main(["train", *wrong])
        except SystemExit as stop:  # argparse
            code = int(str(stop.code))
        assert code == (1 if "double" in wrong else 2)
