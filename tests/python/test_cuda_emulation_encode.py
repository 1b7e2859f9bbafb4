"""Encoding on CUDA, in emulation: the codes and sums of the CPU to the last bit."""

from __future__ import annotations

import emulation
import pytest
import torch
from encode_cases import MODES, Case, assert_same

emulation.load()
CPU, EMULATED = torch.ops.torchext._encode, torch.ops.torchext_emulated._encode
WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 16)


def same(case: Case) -> None:
    assert_same(case.run(CPU), case.run(EMULATED))


@pytest.mark.parametrize("tables", [False, True])
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_width(mode: str, bits: int, tables: bool) -> None:
    if (mode == "double" and bits < 2) or (tables and bits > 8):
        pytest.skip("refused by the op")
    same(Case(131, 7, bits, mode, tables=tables))


@pytest.mark.parametrize("rows", [0, 1, 7, 64, 65, 1024, 1025, 2200])
@pytest.mark.parametrize("cols", [1, 4, 33])
def test_ragged_shapes(rows: int, cols: int) -> None:
    same(Case(rows, cols, 5, "stochastic"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("outputs", [0, 1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_targets_and_weights(mode: str, outputs: int, weighted: bool) -> None:
    same(Case(1100, 5, 4, mode, outputs=outputs, weighted=weighted))


@pytest.mark.parametrize("mode", MODES)
def test_doubles_scattered_rows_and_strides(mode: str) -> None:
    case = Case(200, 6, 4, mode, dtype=torch.float64, scattered=True)
    same(case)
    case.x = torch.cat([case.x, case.x], 1)[:, :6]  # rows lie apart
    same(case)
    case.x = case.x.t().contiguous().t()  # columns lie apart
    same(case)


def test_without_bounds_nothing_is_clipped() -> None:
    case = Case(70, 3, 3, "nearest")
    got = case.run(EMULATED, bounds=None)
    assert_same(case.run(CPU, bounds=None), got)
    assert got["clipped"].tolist() == [7, 7, 7]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (31, 4), (65, 33), (1100, 70), (2049, 5)], ids=str)
def test_an_anchor(shape: tuple[int, int], outputs: int, mode: str) -> None:
    case = Case(*shape, 4, mode, outputs=outputs, weighted=shape[0] != 65, scattered=True)
    at = {"x0": torch.randn(outputs, shape[1]), "intercept": torch.randn(outputs)}
    assert_same(case.run(CPU, **at), case.run(EMULATED, **at))
    at.pop("intercept")
    got = case.run(EMULATED, **at)
    assert_same(case.run(CPU, **at), got)
    assert bool((got["totals"][1:, :-1] != 0.25).all())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("outputs", [1, 3])
def test_an_anchor_of_the_logistic_loss(outputs: int, mode: str) -> None:
    case = Case(1100, 9, 4, mode, outputs=outputs, weighted=True)
    assert case.y is not None
    case.y = case.y.sign()
    for size in (0.3, 300.0):  # slopes of both kinds, and saturated ones
        at = {"x0": size * torch.randn(outputs, 9), "intercept": torch.randn(outputs)}
        assert_same(case.run(CPU, loss="log_loss", **at), case.run(EMULATED, loss="log_loss", **at))


def test_a_value_on_the_upper_of_two_adjacent_levels() -> None:
    """Their middle rounds to the upper one, which must not become the lower."""
    case = Case(64, 1, 1, "nearest", tables=True)
    low, high = 1 + 2.0**-23, 1 + 2.0**-22
    case.levels = torch.tensor([[low, high]])
    case.x = torch.tensor([low, high]).repeat(32)[:, None].contiguous()
    same(case)
