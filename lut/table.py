"""A LUT is the product table of one multiplier, indexed by the bit patterns of its two operands."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hw.errors import InputError
from hw.files import write_bytes

if TYPE_CHECKING:
    from hw.multipliers import Multiplier

    from .factors import Factors

__all__ = ["LUT", "operand_values"]

MAXIMUM_WIDTH = 8


def operand_values(width: int, signed: bool) -> NDArray[np.int64]:
    """The integers that the bit patterns 0 … 2**width - 1 stand for, two's complement if signed."""
    patterns = np.arange(1 << width, dtype=np.int64)
    return (
        np.where(patterns >> (width - 1) == 1, patterns - (1 << width), patterns)
        if signed
        else patterns
    )


@dataclass(frozen=True, eq=False)
class LUT:
    """Product table: ``table[a, b]``, int32, shape (2**a_width, 2**b_width), widths 1 … 8.

    Row = bit pattern of the first operand = the activation; column = bit pattern of the second =
    the weight. ``a_signed`` and ``b_signed`` say which integers the patterns stand for; they do not
    change the table. Two LUTs are equal when table and signedness are.

    Raises InputError when the shape is no pair of powers of two or a value does not fit int32.
    """

    table: NDArray[np.int32]
    a_signed: bool = field(default=False, kw_only=True)
    b_signed: bool = field(default=False, kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        table = np.asarray(self.table)
        if not np.issubdtype(table.dtype, np.integer):
            raise InputError(f"LUT {self.name!r} must hold integers, not {table.dtype}")
        sizes = {1 << width for width in range(1, MAXIMUM_WIDTH + 1)}
        if table.ndim != 2 or not set(table.shape) <= sizes:
            raise InputError(
                f"LUT {self.name!r} must have a shape of two powers of two up to 256, "
                f"not {table.shape}"
            )
        limits = np.iinfo(np.int32)
        if table.min() < limits.min or table.max() > limits.max:
            raise InputError(
                f"LUT {self.name!r} must hold values that fit int32, not {table.max()}"
            )
        frozen = np.array(table, dtype=np.int32, order="C")
        frozen.setflags(write=False)
        object.__setattr__(self, "table", frozen)

    @classmethod
    def of(cls, multiplier: "Multiplier") -> "LUT":
        """The table of a gate-level multiplier, simulated over every operand pair."""
        from hw.simulation import truth_table

        signed = multiplier.signed
        table = truth_table(multiplier.netlist, signed=signed)
        return cls(table, a_signed=signed, b_signed=signed, name=multiplier.name)

    @classmethod
    def exact(
        cls, *, a_signed: bool = False, b_signed: bool = False, width: int = MAXIMUM_WIDTH
    ) -> "LUT":
        """The table of exact products."""
        products = np.outer(operand_values(width, a_signed), operand_values(width, b_signed))
        return cls(products.astype(np.int32), a_signed=a_signed, b_signed=b_signed, name="exact")

    @property
    def a_width(self) -> int:
        return int(self.table.shape[0]).bit_length() - 1

    @property
    def b_width(self) -> int:
        return int(self.table.shape[1]).bit_length() - 1

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the table as little-endian int32 in row-major order, in hexadecimal."""
        return hashlib.sha256(self.table.astype("<i4").tobytes()).hexdigest()

    @cached_property
    def errors(self) -> NDArray[np.int64]:
        """Table minus exact products, same shape and indexing."""
        a = operand_values(self.a_width, self.a_signed)
        b = operand_values(self.b_width, self.b_signed)
        return self.table.astype(np.int64) - np.outer(a, b)

    @cached_property
    def zero_rows(self) -> frozenset[int]:
        """Patterns of the first operand whose products are all 0."""
        return frozenset(np.flatnonzero(~self.table.any(axis=1)).tolist())

    @cached_property
    def rank(self) -> int:
        """The exact rank of the table as a matrix of integers."""
        from flint import fmpz_mat

        return int(fmpz_mat(self.table.tolist()).rank())

    @cached_property
    def factors(self) -> "Factors":
        """Exact integer factors of the table; minutes for a table of full rank, look at `rank`
        first.
        """
        from .factors import factorize

        return factorize(self)

    def sign_magnitude(self) -> "LUT":
        """The signed multiplier of this unsigned one between absolute values and a sign.

        ``sign(a)·sign(b)·table[|a|, |b|]`` for two's complement operands of the same widths, the
        lowest one included: |-128| = 128 is an unsigned operand of 8 bits. sign(0) = 0, so products
        with 0 are 0 whatever the table holds there. Its rank is at most this one's. The name gets
        the suffix ``_sign_magnitude``. Raises InputError unless both operands are unsigned.
        """
        if self.a_signed or self.b_signed:
            raise InputError(
                f"both operands of LUT {self.name!r} must be unsigned, not of signedness "
                f"{self.a_signed:d} and {self.b_signed:d}"
            )
        a, b = operand_values(self.a_width, True), operand_values(self.b_width, True)
        table = np.outer(np.sign(a), np.sign(b)) * self.table[np.abs(a)][:, np.abs(b)]
        name = f"{self.name}_sign_magnitude"
        result = LUT(table, a_signed=True, b_signed=True, name=name)
        if "factors" in self.__dict__:
            result._know_signed_factors(self.factors)
        return result

    def _know_signed_factors(self, factors: "Factors") -> None:
        """Take over those of the unsigned table, unless fewer columns do."""
        from .factors import Factors

        a, b = operand_values(self.a_width, True), operand_values(self.b_width, True)
        u = np.sign(a)[:, None] * factors.u[np.abs(a)]
        v = np.sign(b)[:, None] * factors.v[np.abs(b)]
        if self.rank == factors.rank:
            self.with_factors(Factors(u, v))

    def with_factors(self, factors: "Factors") -> "LUT":
        """This LUT, knowing its factors; InputError when they do not reproduce it."""
        if not np.array_equal(factors.table, self.table):
            raise InputError(
                f"factors of LUT {self.name!r} must reproduce its table exactly, they do not"
            )
        self.__dict__.update(factors=factors, rank=factors.rank)
        return self

    @property
    def is_exact(self) -> bool:
        return not self.errors.any()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LUT):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[str, tuple[int, ...], bool, bool]:
        return self.digest, self.table.shape, self.a_signed, self.b_signed

    def save(self, path: Path) -> None:
        """Write the bare table as ``.npy`` (int32); the signedness is the reader's to know."""
        buffer = BytesIO()
        np.save(buffer, self.table)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path, **attributes: Any) -> "LUT":
        """Read a table written by :meth:`save`. Raises InputError when the file holds no table."""
        try:
            table = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InputError(
                f"{path} must be a .npy file with a product table, not {error}"
            ) from None
        return cls(table, **attributes)
