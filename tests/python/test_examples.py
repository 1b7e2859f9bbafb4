"""The examples run as they are written, at a small size, and reach what they say."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")
FOLDER = Path(__file__).parents[2] / "examples" / "python"


def example(name: str) -> Callable[[list[str]], Any]:
    main: Callable[[list[str]], Any] = runpy.run_path(str(FOLDER / f"{name}.py"))["main"]
    return main


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    assert all(f'example("{path.stem}")' in text for path in FOLDER.glob("*.py"))


def test_larger_than_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = example("larger_than_memory")(["--rows", "20000"])
    assert model.coef_.shape == (32,)
    text = capsys.readouterr().out
    assert "20,000 rows x 32 columns" in text and "codes 0.3 MB" in text
    table = tmp_path / "mine.csv"
    table.write_text("price,a\n" + "".join(f"{3 * k},{k}\n" for k in range(500)))
    given = example("larger_than_memory")([str(table), "--target", "price", "--bits", "2"])
    assert given.coef_ == pytest.approx([3.0], rel=0.02)


def test_exact_from_few_bits() -> None:
    coefficients, probabilities = example("exact_from_few_bits")(["--bits", "2"])
    assert len(coefficients) == 3 and max(coefficients) < 1e-4
    assert probabilities < 1e-3


def test_low_bit_layer() -> None:
    run = example("low_bit_layer")
    found = run(["--bits", "4", "--steps", "120"])
    accuracy, size = found[4]
    assert accuracy > 0.9
    assert size == (64 * 64 + 64 * 10) * 4 // 8
    assert run(["--bits", "4", "--steps", "120"]) == found  # the same keys, the same bits
