"""Quantized tensors: values at a few bits, with the pieces needed to read them back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchext import _load, ops
from torchext import random as _random
from torchext.levels import OptimalLevels

__all__ = [
    "QuantizedDraws",
    "QuantizedTensor",
    "fake_quantize",
    "quantization_variance",
    "quantize",
    "quantize_draws",
    "uniform_levels",
]


def _bytes(*tensors: Tensor | None) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


@dataclass(frozen=True)
class QuantizedTensor:
    """Packed codes of a tensor; made by :func:`quantize`.

    Attributes:
        codes: uint8 (ceil(numel * bits / 8),), a little-endian bit stream in row-major order.
        scale: float32 (channels,), ``minmax``: (channels, 2) of (lo, step); None for a bare level table.
        levels: float32 (n,) or (channels, n) under ``scheme="levels"``, else None.
        bits: bits per code.
        shape: shape of the values.
        scheme: ``"symmetric"``, ``"minmax"`` or ``"levels"``.
        dim: dimension with one scale per index, or None.
        bucket_size: consecutive elements per scale, or None.
        dtype: dtype of the values that were quantized, and of :meth:`dequantize`.
    """

    codes: Tensor
    scale: Tensor | None
    levels: Tensor | None
    bits: int
    shape: torch.Size
    scheme: str
    dim: int | None = None
    bucket_size: int | None = None
    dtype: torch.dtype = torch.float32

    def dequantize(self, dtype: torch.dtype | None = None) -> Tensor:
        """The values on the grid, in ``dtype`` (default: that of the tensor that was quantized)."""
        values = ops.dequantize(
            self.codes,
            self.scale,
            self.levels,
            self.shape,
            self.bits,
            self.scheme,
            self.dim,
            self.bucket_size,
        )
        return values.to(dtype or self.dtype)

    def unpack(self) -> Tensor:
        """The codes, one a byte: uint8 of the tensor's shape."""
        return ops.unpack_bits(self.codes, self.shape.numel(), self.bits).view(self.shape)

    def to(self, device: torch.device | str) -> QuantizedTensor:
        """The same tensor on another device."""
        scale = None if self.scale is None else self.scale.to(device)
        levels = None if self.levels is None else self.levels.to(device)
        return replace(self, codes=self.codes.to(device), scale=scale, levels=levels)

    def numel(self) -> int:
        """Number of values."""
        return self.shape.numel()

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and levels together."""
        return _bytes(self.codes, self.scale, self.levels)

    @property
    def bits_per_value(self) -> float:
        """Bits per value, scales and levels included."""
        return 8 * self.nbytes / max(1, self.numel())

    def __repr__(self) -> str:
        return (
            f"QuantizedTensor(shape={tuple(self.shape)}, bits={self.bits}, scheme={self.scheme!r}, "
            f"nbytes={self.nbytes}, bits_per_value={self.bits_per_value:.3f})"
        )


_warned: set[str] = set()


def _warn_of_levels(made_for: str, rounding: str) -> None:
    """Once for each kind of rounding; graphs are traced without it."""
    if rounding in _warned or rounding not in ("stochastic", "nearest"):
        return
    _warned.add(rounding)
    warnings.warn(
        f"levels optimal for {made_for} rounding are used with {rounding} rounding: "
        f'optimal_levels(..., objective="{rounding}") has a smaller error',
        stacklevel=5,
    )


def _table(x: Tensor, levels: Tensor | OptimalLevels, rounding: str) -> Tensor:
    """A level table as ops take it."""
    if isinstance(levels, OptimalLevels):
        if levels.objective != rounding and not torch.compiler.is_compiling():
            _warn_of_levels(levels.objective, rounding)
        levels = levels.levels
    return levels.to(device=x.device, dtype=torch.float32)


def _format(
    x: Tensor,
    bits: int,
    scheme: str,
    scale: Tensor | float | None,
    levels: Tensor | OptimalLevels | None,
    dim: int | None,
    bucket_size: int | None,
    rounding: str = "stochastic",
) -> tuple[str, Tensor | None, Tensor | None]:
    """The scheme, scale and levels an op takes."""
    if x.is_cuda:
        _load.require_cuda()
    if scheme not in ("symmetric", "minmax", "levels"):
        raise ValueError(f"scheme must be 'symmetric', 'minmax' or 'levels', got {scheme!r}")
    if levels is not None:
        if scheme == "minmax":
            raise ValueError(
                "scheme must not be 'minmax' when levels are given: the table holds the ends"
            )
        scheme = "levels"
    elif scheme == "levels":
        raise ValueError("levels must be a tensor under scheme 'levels', got None")
    table = None if levels is None else _table(x, levels, rounding)
    if scale is None:
        if table is not None:
            return scheme, None, table
        return scheme, ops.quantization_scale(x.detach(), bits, scheme, dim, bucket_size), None
    made = torch.as_tensor(scale, dtype=torch.float32, device=x.device)
    if scheme == "minmax":
        if made.shape[-1:] != (2,):
            raise ValueError(
                f"scale must hold (lo, step) pairs under 'minmax', got shape {tuple(made.shape)}"
            )
        return scheme, made.reshape(-1, 2), None
    return scheme, made.reshape(-1), table


def _key(x: Tensor, rounding: str, key: Tensor | None) -> Tensor | None:
    if rounding not in ("stochastic", "nearest"):
        raise ValueError(f"rounding must be 'stochastic' or 'nearest', got {rounding!r}")
    if rounding == "nearest":
        return None
    return _random.key(device=x.device) if key is None else _random.key_on(key, x.device)


def quantize(
    x: Tensor,
    bits: int,
    *,
    scheme: str = "symmetric",
    scale: Tensor | float | None = None,
    levels: Tensor | OptimalLevels | None = None,
    dim: int | None = None,
    bucket_size: int | None = None,
    rounding: str = "stochastic",
    key: Tensor | None = None,
) -> QuantizedTensor:
    r"""Round a tensor to ``bits`` bits per value.

    .. math:: q = \lfloor t \rfloor + [u < t - \lfloor t \rfloor], \quad t = x/s, \quad
       \mathrm{E}[s\,q] = x \text{ for every } x \text{ the grid covers}

    Args:
        x: float32, bfloat16, float16 or float64 (rounded to float32 first), any shape.
        bits: 1..8 per value (``symmetric``: 2..8).
        scheme: ``"symmetric"``: multiples ``-Q..Q`` of a spacing, ``Q = 2**(bits-1) - 1``; ``"minmax"``:
            ``2**bits`` equidistant points from the minimum to the maximum. A level table selects
            ``"levels"``.
        scale: the spacing (``symmetric``), (lo, step) (``minmax``) or the factor of the table
            (``levels``): a number, or float32 with one entry per channel. None chooses the smallest grid
            that covers x. Values outside a given grid saturate, which is biased.
        levels: ascending table of 2..``2**bits`` values, (n,) shared or (channels, n), rounded to float32;
            or what :func:`torchext.optimal_levels` returned for the same ``dim`` or ``bucket_size`` (or one
            table for all). Warns once where that was made for the other kind of rounding.
        dim: one scale per index of this dimension (0: per row of a matrix, 1: per column).
        bucket_size: one scale per so many consecutive elements, a multiple of 8.
        rounding: ``"stochastic"`` (unbiased) or ``"nearest"`` (deterministic, biased).
        key: from :mod:`torchext.random`, copied to the device of x where it is not there; None draws one
            from torch's generator of that device.

    Returns:
        A :class:`QuantizedTensor` on the device of x.

    Raises:
        ValueError: for an unknown scheme or rounding, or arguments that exclude each other.
        RuntimeError: for wrong shapes or dtypes, NaN or Inf while a scale is chosen, NaN under
            ``minmax`` and ``levels``. With a given spacing, ``symmetric`` keeps NaN in a code of its own.
            On CUDA, where nothing waits for values, what they would raise has a result instead
            (:func:`torchext.ops.quantize`): such a scale is NaN, and so is all that is read back.

    Determinism: class A; same key, same bits on every instruction set and thread count.

    Example:
        >>> import torchext
        >>> x = torch.linspace(-1, 1, 1000)
        >>> q = quantize(x, 4, key=torchext.random.key_from_seed(0))
        >>> q.nbytes, bool((q.dequantize() - x).abs().max() < 1 / 7)
        (504, True)
        >>> table = torchext.optimal_levels(x**3, bits=4)
        >>> quantize(x**3, 4, levels=table, key=torchext.random.key_from_seed(0)).levels.shape
        torch.Size([16])

    Source: Zhang et al., ZipML (ICML 2017); Alistarh et al., QSGD (NeurIPS 2017).
    """
    scheme, scale, table = _format(x, bits, scheme, scale, levels, dim, bucket_size, rounding)
    codes = ops.quantize(
        x.detach(), scale, table, bits, scheme, dim, bucket_size, rounding, _key(x, rounding, key)
    )
    return QuantizedTensor(codes, scale, table, bits, x.shape, scheme, dim, bucket_size, x.dtype)


def fake_quantize(
    x: Tensor,
    bits: int,
    *,
    scheme: str = "symmetric",
    scale: Tensor | float | None = None,
    levels: Tensor | OptimalLevels | None = None,
    dim: int | None = None,
    bucket_size: int | None = None,
    rounding: str = "stochastic",
    key: Tensor | None = None,
) -> Tensor:
    r"""Round a tensor onto the grid and keep it in floating point, with a straight-through gradient.

    .. math:: y = \mathrm{quantize}(x).\mathrm{dequantize}(), \qquad
       \partial y/\partial x := [\text{x lies inside the grid}]

    Args:
        x, bits, scheme, scale, levels, dim, bucket_size, rounding, key: as for :func:`quantize`.

    Returns:
        Shape and dtype of x.

    Raises:
        ValueError, RuntimeError: as :func:`quantize`, but NaN passes through where a scale is given.

    Determinism: class A.

    Example:
        >>> fake_quantize(torch.tensor([0.2, 0.6, 1.0]), 3, scale=0.5, rounding="nearest").tolist()
        [0.0, 0.5, 1.0]

    Source: Bengio et al., straight-through estimator (arXiv 1308.3432).
    """
    scheme, scale, table = _format(x, bits, scheme, scale, levels, dim, bucket_size, rounding)
    return ops.fake_quantize(
        x, scale, table, bits, scheme, dim, bucket_size, rounding, _key(x, rounding, key)
    )


def quantization_variance(
    x: Tensor,
    bits: int,
    *,
    scheme: str = "symmetric",
    scale: Tensor | float | None = None,
    levels: Tensor | OptimalLevels | None = None,
    dim: int | None = None,
    bucket_size: int | None = None,
) -> Tensor:
    r"""What stochastic rounding of ``x`` would add: the exact expectation, nothing is drawn.

    .. math:: \mathrm{E}\,\|Q(x) - \mathrm{E}\,Q(x)\|^2 = \sum_i (hi_i - x_i)(x_i - lo_i)

    with lo and hi the grid points around each value.

    Args:
        x, bits, scheme, scale, levels, dim, bucket_size: as for :func:`quantize`.

    Returns:
        float64 scalar tensor.

    Raises:
        ValueError, RuntimeError: as :func:`quantize`.

    Determinism: class A.

    Example:
        >>> quantization_variance(torch.tensor([0.3]), 1, levels=torch.tensor([0.0, 1.0])).item()
        0.21...

    Source: Zhang et al., ZipML (ICML 2017), section 3.
    """
    scheme, scale, table = _format(x, bits, scheme, scale, levels, dim, bucket_size)
    return ops.quantization_variance(x.detach(), scale, table, bits, scheme, dim, bucket_size)


def uniform_levels(x: Tensor, count: int, dim: int | None = None) -> Tensor:
    r"""Equidistant levels from the minimum to the maximum of every channel.

    .. math:: L_l = \mathrm{fl}(lo + \mathrm{fl}(l \cdot step)), \quad l = 0 .. count - 1

    Args:
        x: float tensor without NaN or Inf.
        count: number of levels, 2..257.
        dim: one table per index of this dimension; None: one for the tensor.

    Returns:
        float32 (channels, count), or (count,) without ``dim``; the step is raised by ulps until the top
        level reaches the maximum. A constant channel repeats its value.

    Example:
        >>> uniform_levels(torch.tensor([0.0, 0.2, 1.0]), 5).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if not 2 <= count <= 257:
        raise ValueError(f"count must be in [2, 257], got {count}")
    value = x.detach().to(torch.float32)
    flat = value.reshape(1, -1) if dim is None else value.movedim(dim, 0).flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    index = torch.arange(count, dtype=torch.float32, device=x.device)
    step = ((high.double() - low.double()) / (count - 1)).float()
    while (short := low + (count - 1) * step < high).any():
        step = torch.where(short, torch.nextafter(step, torch.full_like(step, torch.inf)), step)
    levels = low[:, None] + index * step[:, None]
    return levels[0] if dim is None else levels


@dataclass(frozen=True)
class QuantizedDraws:
    """Several independent roundings of a tensor; made by :func:`quantize_draws`.

    Attributes:
        codes: uint8, packed intervals and draws.
        levels: float32 (n,) or (channels, n).
        draws: number of draws.
        form: ``"bits"``, ``"count"`` or ``"ternary"``.
        shape: shape of the values.
        dim: dimension of the channels, or None.
        pairing_key: key of the coins that deal the counted draws out (``count``, ``ternary``).
    """

    codes: Tensor
    levels: Tensor
    draws: int
    form: str
    shape: torch.Size
    dim: int | None
    pairing_key: Tensor

    def dequantize(self, draw: int = 0) -> Tensor:
        """Draw number ``draw``, float32."""
        return ops.dequantize_draws(
            self.codes,
            self.levels,
            self.shape,
            self.draws,
            self.form,
            self.dim,
            draw,
            self.pairing_key,
        )

    def to(self, device: torch.device | str) -> QuantizedDraws:
        """The same draws on another device."""
        return replace(
            self,
            codes=self.codes.to(device),
            levels=self.levels.to(device),
            pairing_key=self.pairing_key.to(device),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of codes and levels together."""
        return _bytes(self.codes, self.levels)

    @property
    def bits_per_value(self) -> float:
        """Bits of codes per value: the interval and all draws."""
        return 8 * self.codes.numel() / max(1, self.shape.numel())


def quantize_draws(
    x: Tensor,
    levels: Tensor | OptimalLevels,
    draws: int = 2,
    *,
    form: str = "bits",
    dim: int | None = None,
    key: Tensor | None = None,
) -> QuantizedDraws:
    r"""Round every value several times, independently, at little more than the cost of once.

    .. math:: \mathrm{E}\,Q_d(x) = x, \quad \mathrm{E}\,Q_1(x)\,Q_2(x) = x^2

    The second identity is why double sampling exists: a single draw gives ``x**2`` plus its variance.

    Args:
        x: float tensor.
        levels: ascending table, (n,) or (channels, n); see :func:`uniform_levels` and
            :func:`torchext.optimal_levels`, whose result is taken as it is.
        draws: 1..8.
        form: how draws are stored; with B bits for the interval ``"bits"`` takes B + draws bits per
            value, ``"count"`` B + ceil(log2(draws + 1)), ``"ternary"`` B + 1.6 (two draws).
        dim: dimension of the channels if every channel has a table, else None.
        key: copied to the device of x where it is not there; None draws one from torch's generator.

    Returns:
        A :class:`QuantizedDraws`.

    Raises:
        RuntimeError: for NaN, wrong shapes, or more than 8 bits per value.

    Determinism: class A.

    Example:
        >>> import torchext
        >>> x = torch.rand(1000, generator=torch.Generator().manual_seed(0))
        >>> d = quantize_draws(x, uniform_levels(x, 5), key=torchext.random.key_from_seed(1))
        >>> d.bits_per_value
        4.0

    Source: Zhang et al., ZipML (ICML 2017), section 2.2.
    """
    if x.is_cuda:
        _load.require_cuda()
    used = _random.key(device=x.device) if key is None else _random.key_on(key, x.device)
    table = _table(x, levels, "stochastic")
    codes = ops.quantize_draws(x.detach(), table, draws, form, dim, used)
    return QuantizedDraws(
        codes, table, draws, form, x.shape, dim, _random.fold_in(used, _random.Purpose.DATA)
    )
