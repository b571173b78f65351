"""The multipliers that a layer may compute with, over one joint basis of the activation side.

Operators name them by a key made of their tables' digests, so a graph that is traced or exported
carries no table; who runs it in another process makes the same `Candidates` first.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from hw.errors import InputError, unknown_name

from .backends.float32 import RANK_LIMIT
from .factors import Factors, JointBasis, joint_basis
from .gradients import GRADIENTS, ProductGradient
from .planes import FP32_EXACT
from .table import LUT

__all__ = ["Candidates", "Tables", "tables_of"]


@dataclass(frozen=True, eq=False)
class Tables:
    """LUTs of one width and signedness with their joint basis (None where its rank is too high).

    `gradient`: a name in ``lut.gradients.GRADIENTS``. mixture_share: of a batch's images, the first
    ones, by which the gradient of mixtures is estimated.
    """

    luts: tuple[LUT, ...]
    basis: JointBasis | None
    gradient: str
    mixture_share: float = 1.0

    @property
    def key(self) -> str:
        """SHA-256 of digests, signedness, gradient and share, in hexadecimal."""
        parts = [f"{lut.digest} {lut.a_signed:d} {lut.b_signed:d}" for lut in self.luts]
        parts += [self.gradient, str(self.mixture_share)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @cached_property
    def product_bound(self) -> int:
        """No partial sum of one product of any candidate exceeds it."""
        assert self.basis is not None
        return max(self.basis.factors(index).product_bound for index in range(len(self.luts)))

    def exact_channels(self, taps: int) -> int:
        """How many input channels fp32 sums over factors are exact for; 0: not even one."""
        return (FP32_EXACT - 1) // max(1, taps * self.product_bound) if self.basis else 0

    @lru_cache(maxsize=256)  # noqa: B019  # tables live as long as the process
    def u(self, device: torch.device) -> Tensor:
        """float32 (rows, R)."""
        assert self.basis is not None
        return torch.from_numpy(self.basis.u).to(device, torch.float32)

    @lru_cache(maxsize=256)  # noqa: B019
    def v(self, device: torch.device) -> Tensor:
        """float32 (M, columns, R)."""
        assert self.basis is not None
        return torch.from_numpy(self.basis.v).to(device, torch.float32)

    @lru_cache(maxsize=256)  # noqa: B019
    def slopes(self, device: torch.device) -> tuple[Tensor, ...]:
        """x_u, x_v, w_u, w_v of the gradient, each float32 (M, 256, S)."""
        each = [self._gradient(index) for index in range(len(self.luts))]
        return tuple(
            torch.from_numpy(np.stack([getattr(one, name) for one in each])).to(
                device, torch.float32
            )
            for name in ("x_u", "x_v", "w_u", "w_v")
        )

    @cached_property
    def shares_w_u(self) -> bool:
        """Whether the slopes of weights have the same activation side for all candidates; else they
        have the same weight side. Those of activations have the same activation side.
        """
        sides = [self._gradient(index).w_u for index in range(len(self.luts))]
        return all(np.array_equal(sides[0], side) for side in sides)

    def _gradient(self, index: int) -> ProductGradient:
        lut = self.luts[index]
        factors = lut.factors if self.basis is None else self.basis.factors(index)
        return GRADIENTS[self.gradient](lut, factors)


_KNOWN: dict[str, Tables] = {}


def tables_of(key: str) -> Tables:
    """The tables of a `Candidates` made in this process."""
    if key not in _KNOWN:
        raise InputError(
            f"the candidates of key {key[:12]}… must be made in this process first "
            "(lut.Candidates of the same tables), they are not known"
        )
    return _KNOWN[key]


class Candidates(nn.Module):
    """The multipliers a layer may compute with, over one joint basis. Shared by many layers.

    ``luts`` must agree in width and signedness; `basis` is theirs, computed where it is not given
    and the rank of a single table allows. `gradient` is a name in ``lut.gradients.GRADIENTS``;
    `mixture_share`, more than 0 and at most 1: the share of a batch's images by which the gradient
    of a mixture is estimated, without bias where images come in random order. Has neither
    parameters nor buffers: tables are kept by device, once for the process.
    """

    def __init__(
        self,
        luts: Sequence[LUT],
        basis: JointBasis | None = None,
        gradient: str = "straight_through",
        mixture_share: float = 1.0,
    ) -> None:
        super().__init__()
        if gradient not in GRADIENTS:
            raise unknown_name("gradient", gradient, GRADIENTS)
        if len({(lut.table.shape, lut.a_signed, lut.b_signed) for lut in luts}) != 1:
            names = ", ".join(lut.name for lut in luts)
            raise InputError(f"candidates must be of one width and signedness, not {names}")
        if not 0.0 < mixture_share <= 1.0:
            raise InputError(
                f"mixture_share must be more than 0 and at most 1, not {mixture_share}"
            )
        tables = Tables(tuple(luts), basis or _basis(luts), gradient, mixture_share)
        self.key = tables.key
        self.tables = _KNOWN.setdefault(self.key, tables)
        # Names are not part of the key; those given stay.
        self.luts = tuple(luts)

    def __len__(self) -> int:
        return len(self.luts)

    def __deepcopy__(self, memo: object) -> "Candidates":
        return self

    @property
    def rank(self) -> int:
        """Of the joint basis; of the one table where that has none."""
        basis = self.tables.basis
        return self.luts[0].rank if basis is None else basis.rank

    @property
    def gradient(self) -> str:
        return self.tables.gradient

    @property
    def a_range(self) -> tuple[int, int]:
        """Symmetric quantisation range of activations, for example (-127, 127)."""
        return _symmetric_range(self.luts[0].a_width, self.luts[0].a_signed)

    @property
    def a_full_range(self) -> tuple[int, int]:
        """All integers of the first operand, for example (-128, 127)."""
        return _full_range(self.luts[0].a_width, self.luts[0].a_signed)

    @property
    def b_range(self) -> tuple[int, int]:
        """Symmetric quantisation range of weights."""
        return _symmetric_range(self.luts[0].b_width, self.luts[0].b_signed)

    @property
    def b_full_range(self) -> tuple[int, int]:
        """All integers of the second operand."""
        return _full_range(self.luts[0].b_width, self.luts[0].b_signed)

    def check_mixture(self, mixture: Tensor | None) -> None:
        """InputError unless `mixture` weighs these candidates, (M,); one needs no weight."""
        if mixture is None and len(self) > 1:
            raise InputError(f"mixture must have {len(self)} weights, not be left out")
        if mixture is not None and mixture.shape != (len(self),):
            raise InputError(
                f"mixture must have {len(self)} weights, not the shape {tuple(mixture.shape)}"
            )


def _basis(luts: Sequence[LUT]) -> JointBasis | None:
    """None for one table of a rank at which no backend uses factors."""
    if len(luts) > 1:
        return joint_basis(luts)
    if luts[0].rank > RANK_LIMIT:
        return None
    factors: Factors = luts[0].factors
    return JointBasis(factors.u, factors.v[None])


def _symmetric_range(width: int, signed: bool) -> tuple[int, int]:
    return (1 - (1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)


def _full_range(width: int, signed: bool) -> tuple[int, int]:
    return (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
