"""Encoding on a real GPU: the codes and sums of the CPU to the last bit."""

from __future__ import annotations

import pytest
import torch
from encode_cases import MODES, Case, assert_same

from torchext import _build

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.skipif(not _build.CUDA, reason="torchext was built without CUDA"),
]


@pytest.mark.parametrize("bits", [1, 3, 4, 8, 16])
@pytest.mark.parametrize("mode", MODES)
def test_codes_and_sums(mode: str, bits: int) -> None:
    if mode == "double" and bits < 2:
        pytest.skip("refused by the op")
    same_codes(5000, bits, mode)


@pytest.mark.parametrize("mode", MODES)
def test_small_codes(mode: str) -> None:
    """Under compute-sanitizer too."""
    same_codes(130, 4, mode)
    same_codes(130, 8, mode)


def same_codes(rows: int, bits: int, mode: str) -> None:
    op = torch.ops.torchext._encode
    case = Case(rows, 131, bits, mode, tables=bits <= 4, outputs=2, weighted=True)
    assert_same(case.run(op), case.run(op, "cuda"))
