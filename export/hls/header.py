"""The header `cosearch_product.h`: each multiplier as a functor in the style of hls4ml's products.

hls4ml's layers call ``CONFIG_T::template product<x_T, w_T>::product(a, w)``, a being the
activation; its own products are class templates of the namespace ``nnet::product`` whose static
function returns ``decltype(a * w)`` (hls4ml 1.3, nnet_utils/nnet_mult.h). C++11, without includes
of a vendor.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from hw import Netlist, truth_table
from hw.errors import InputError
from lut import LUT

from .body import circuit_body, factors_body, table_body

__all__ = ["HlsMultiplier", "hls_files", "product_header"]

FACTOR_RANK_LIMIT = 4


@dataclass(frozen=True, eq=False)
class HlsMultiplier:
    """A multiplier under its legal name `name`, with its gates where it has some.

    The function computes with the gates as bit operations, which high-level synthesis turns into
    the circuit again. Without gates it computes with the exact factors where their rank is at most
    `FACTOR_RANK_LIMIT`, else it reads the table.
    """

    name: str
    lut: LUT
    netlist: Netlist | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or not self.name.isascii():
            raise InputError(f"name of a functor must be a C++ name, not {self.name!r}")
        if self.netlist is not None and not self._is_table_of(self.netlist):
            raise InputError(f"netlist of {self.name} must compute its table, it does not")

    def body(self) -> Iterator[str]:
        """Statements of the function from the bit patterns `a` and `b` to the product."""
        if self.netlist is not None:
            return circuit_body(self.netlist, self.product_signed)
        if self.lut.rank <= FACTOR_RANK_LIMIT:
            return factors_body(self.lut)
        return table_body(self.lut)

    def _is_table_of(self, netlist: Netlist) -> bool:
        return len(netlist.inputs) == 2 and np.array_equal(
            truth_table(netlist, signed=self.product_signed), self.lut.table
        )

    @property
    def product_signed(self) -> bool:
        return self.lut.a_signed or self.lut.b_signed


def hls_files(multipliers: Sequence[HlsMultiplier]) -> Mapping[str, str]:
    """Path under `rtl/` and text: the header, an example of its use, notes for hls4ml and FINN."""
    folder = files(__package__) / "files"
    names = [multiplier.name for multiplier in multipliers]
    texts = {
        f"hls/{item.name}": _filled(item.read_text("utf-8"), multipliers)
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.is_file()
    }
    if len(set(names)) != len(names) or not names:
        raise InputError(f"names of functors must be distinct and at least one, not {names}")
    return {"hls/cosearch_product.h": product_header(multipliers), **texts}


def product_header(multipliers: Sequence[HlsMultiplier]) -> str:
    """The text of the header; the same multipliers give the same text."""
    return "\n".join(
        [
            _HEAD,
            *(line for multiplier in multipliers for line in _functor(multiplier)),
            "#endif // COSEARCH_PRODUCT_H_",
            "",
        ]
    )


def checksum(values: NDArray[np.int32]) -> int:
    """What the example computes of all products, row after row: 31·sum + product, in 32 bits."""
    total = 0
    for value in values.reshape(-1).tolist():
        total = (31 * total + value) & 0xFFFFFFFF
    return total


def _functor(multiplier: HlsMultiplier) -> Iterator[str]:
    lut, name = multiplier.lut, multiplier.name
    yield f"// {name}: a {_kind(lut.a_width, lut.a_signed)}, w {_kind(lut.b_width, lut.b_signed)}."
    yield f"// SHA-256 of the product table: {lut.digest}"
    yield "namespace cosearch {"
    yield f"inline int {name}(unsigned a, unsigned b) {{"
    yield "#pragma HLS INLINE"
    yield from (f"    {line}" for line in multiplier.body())
    yield "}"
    yield "} // namespace cosearch"
    yield from _CLASS.format(name=name, a=lut.a_width, b=lut.b_width).splitlines()
    yield ""


def _kind(width: int, signed: bool) -> str:
    kind = "two's complement" if signed else "unsigned"
    return f"{kind} of {width} bits"


def _filled(text: str, multipliers: Sequence[HlsMultiplier]) -> str:
    first = multipliers[0]
    values = {
        "@NAME@": first.name,
        "@NAMES@": ", ".join(f"`{multiplier.name}`" for multiplier in multipliers),
        "@A_SIZE@": str(first.lut.table.shape[0]),
        "@B_SIZE@": str(first.lut.table.shape[1]),
        "@A_TYPE@": "signed char" if first.lut.a_signed else "unsigned char",
        "@B_TYPE@": "signed char" if first.lut.b_signed else "unsigned char",
        "@CHECKSUM@": f"{checksum(first.lut.table)}u",
    }
    for key, value in values.items():
        text = text.replace(key, value)
    return text


_CLASS = """\
namespace nnet {{
namespace product {{
template <class x_T, class w_T> class {name} {{
  public:
    typedef decltype(std::declval<::cosearch::operand_t<{a}, x_T>>() *
                     std::declval<::cosearch::operand_t<{b}, w_T>>()) result_T;
    static result_T product(x_T a, w_T w) {{
#pragma HLS INLINE
        return ::cosearch::value<result_T>(
            ::cosearch::{name}(::cosearch::pattern<{a}>(a), ::cosearch::pattern<{b}>(w)));
    }}
}};
}} // namespace product
}} // namespace nnet
"""
_HEAD = """\
// Approximate multipliers as products of hls4ml: nnet::product::<name><x_T, w_T>::product(a, w).
// Operands are C++ integers, ap_int or ap_fixed (or unsigned ones) of the multiplier's widths. The
// product of two fixed-point numbers is the multiplier's integer product of their bits, with as
// many fraction bits as both have together: what a * w means, too.
#ifndef COSEARCH_PRODUCT_H_
#define COSEARCH_PRODUCT_H_

#include <type_traits>
#include <utility>

namespace cosearch {

// What an operand of WIDTH bits is taken as: itself, or, with one bit less, the signed number of
// WIDTH bits of the same value: an unsigned operand of 7 bits suits a signed multiplier of 8.
template <int WIDTH, class T, bool INTEGRAL> struct Operand {
    static const int missing = WIDTH - T::width;
    static_assert(missing == 0 || missing == 1,
                  "an operand must have as many bits as the multiplier takes, or one less");
    typedef decltype(std::declval<T>() - std::declval<T>()) wider;
    typedef typename std::conditional<missing == 0, T, wider>::type type;
};
template <int WIDTH, class T> struct Operand<WIDTH, T, true> {
    typedef T type;
};
template <int WIDTH, class T>
using operand_t = typename Operand<WIDTH, T, std::is_integral<T>::value>::type;

// The bit pattern of an operand. Integers of C++ may be wider; their value must fit.
template <int WIDTH, class T>
typename std::enable_if<std::is_integral<T>::value, unsigned>::type pattern(T x) {
#pragma HLS INLINE
    return static_cast<unsigned>(x) & ((1u << WIDTH) - 1u);
}
template <int WIDTH, class T>
typename std::enable_if<!std::is_integral<T>::value, unsigned>::type pattern(T x) {
#pragma HLS INLINE
    operand_t<WIDTH, T> operand = x;
    return operand.range(WIDTH - 1, 0).to_uint();
}

// A product from its integer.
template <class R>
typename std::enable_if<std::is_integral<R>::value, R>::type value(int product) {
#pragma HLS INLINE
    return static_cast<R>(product);
}
template <class R>
typename std::enable_if<!std::is_integral<R>::value, R>::type value(int product) {
#pragma HLS INLINE
    R result;
    result.range(R::width - 1, 0) = product;
    return result;
}

} // namespace cosearch
"""
