"""The C++ functors: compiled by g++, every operand pair of every body; in hls4ml's own layer where
hls4ml is installed.
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import hw
from export.hls import HlsMultiplier, hls_files, product_header
from hw import InputError
from lut import LUT

from ..lut.tables import random_table, truncated

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="g++ is missing: apt-get install g++"
)
FAMILIES = {(name[:5], hw.parse_multiplier_name(name).family): name for name in hw.CATALOGUE}
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wno-unknown-pragmas", "-pedantic", "-Werror"]
# Bit patterns in order; a conversion to a signed type takes the pattern.
PROGRAM = """
#include "hls/cosearch_product.h"
#include <cstdio>
template <class x_T, class w_T, class F> void products(int a_count, int b_count) {{
    for (int a = 0; a < a_count; a++)
        for (int b = 0; b < b_count; b++) {{
            const int product = F::product(static_cast<x_T>(a), static_cast<w_T>(b));
            std::fwrite(&product, sizeof product, 1, stdout);
        }}
}}
int main() {{
{calls}
    return 0;
}}
"""
# What the header asks of a vendor's types: width, range(high, low), to_uint().
VENDOR_LIKE = """
struct Range {
    unsigned &bits; unsigned mask;
    unsigned to_uint() const { return bits & mask; }
    Range &operator=(int value) { bits = static_cast<unsigned>(value) & mask; return *this; }
};
template <int W> struct Bits {
    static const int width = W;
    unsigned bits = 0;
    Bits(unsigned value = 0) : bits(value) {}
    template <int V> Bits(Bits<V> other) : bits(other.bits) {}
    Range range(int high, int low) { return Range{bits, low ? 0 : (2u << high) - 1u}; }
    operator int() const { return static_cast<int>(bits); }
};
template <int V, int W> Bits<V + W> operator*(Bits<V>, Bits<W>) { return {}; }
template <int W> Bits<W + 1> operator-(Bits<W>, Bits<W>) { return {}; }
"""


def compiled(
    folder: Path, multipliers: Sequence[HlsMultiplier], program: str, *options: str
) -> bytes:
    """What the program prints; the multipliers' header lies in `hls/`."""
    (folder / "hls").mkdir(exist_ok=True)
    (folder / "hls" / "cosearch_product.h").write_text(product_header(multipliers))
    (folder / "program.cpp").write_text(program)
    command = ["g++", "-std=c++11", *options, "program.cpp", "-o", "program"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return subprocess.run([folder / "program"], capture_output=True, check=True).stdout


def all_products(folder: Path, multipliers: Sequence[HlsMultiplier]) -> list[NDArray[np.int32]]:
    """The table of every functor, called with C++ integers."""
    calls = []
    for multiplier in multipliers:
        lut, types = multiplier.lut, {True: "signed char", False: "unsigned char"}
        x, w = types[lut.a_signed], types[lut.b_signed]
        rows, columns = lut.table.shape
        functor = f"nnet::product::{multiplier.name}<{x}, {w}>"
        calls.append(f"    products<{x}, {w}, {functor}>({rows}, {columns});")
    output = compiled(folder, multipliers, PROGRAM.format(calls="\n".join(calls)), *WARNINGS)
    values, tables = np.frombuffer(output, np.int32), []
    for multiplier in multipliers:
        shape = multiplier.lut.table.shape
        tables.append(values[: shape[0] * shape[1]].reshape(shape))
        values = values[shape[0] * shape[1] :]
    assert not values.size
    return tables


def of_circuit(name: str) -> HlsMultiplier:
    multiplier = hw.build_multiplier(name)
    return HlsMultiplier(f"cosearch_{name}", LUT.of(multiplier), multiplier.netlist)


def test_circuits_of_every_family_over_all_operand_pairs(tmp_path: Path) -> None:
    multipliers = [of_circuit(name) for name in FAMILIES.values()]
    assert len(multipliers) > 30
    for multiplier, table in zip(multipliers, all_products(tmp_path, multipliers), strict=True):
        assert np.array_equal(table, multiplier.lut.table), multiplier.name


@pytest.mark.parametrize(
    "lut",
    [
        LUT.exact(a_signed=True, b_signed=True),
        LUT.exact(a_signed=False, b_signed=True),
        LUT.exact(width=3),
        truncated(7),
        random_table(3),
        random_table(70, magnitude=3),
        LUT(np.zeros((256, 256), np.int32)),
    ],
    ids=["exact", "mixed_signs", "narrow", "truncated", "rank_3", "rank_70", "zero"],
)
def test_factors_and_tables_over_all_operand_pairs(tmp_path: Path, lut: LUT) -> None:
    (table,) = all_products(tmp_path, [HlsMultiplier("cosearch_one", lut)])
    assert np.array_equal(table, lut.table)


def test_body_is_chosen_by_rank(tmp_path: Path) -> None:
    def text(lut: LUT) -> str:
        return product_header([HlsMultiplier("m", lut)])

    assert "u3[a] * v3[b]" in text(random_table(4)) and "table[" not in text(random_table(4))
    assert "table[(a << 8) | b]" in text(random_table(5))


def test_vendor_types_are_read_and_written_by_range(tmp_path: Path) -> None:
    multiplier = of_circuit("mul8s_truncated_k6")
    body = """
    for (unsigned a = 0; a < 256; a++)
        for (unsigned b = 0; b < 256; b++) {
            Bits<16> p =
                nnet::product::cosearch_mul8s_truncated_k6<Bits<8>, Bits<8>>::product(a, b);
            std::fwrite(&p.bits, 4, 1, stdout);
        }
    """
    program = (
        f'#include "hls/cosearch_product.h"\n#include <cstdio>\n{VENDOR_LIKE}int main() {{{body}}}'
    )
    output = compiled(tmp_path, [multiplier], program)
    patterns = np.frombuffer(output, np.uint32).reshape(256, 256)
    assert np.array_equal(patterns, multiplier.lut.table & 0xFFFF)
    narrow = program.replace("<Bits<8>, Bits<8>>", "<Bits<7>, Bits<8>>").replace(
        "a < 256", "a < 128"
    )
    patterns = np.frombuffer(compiled(tmp_path, [multiplier], narrow), np.uint32).reshape(128, 256)
    assert np.array_equal(patterns, multiplier.lut.table[:128] & 0xFFFF)
    wide = "nnet::product::cosearch_mul8s_truncated_k6<Bits<9>, Bits<8>>::product(1, 1);"
    with pytest.raises(AssertionError, match="as many bits as the multiplier takes"):
        compiled(tmp_path, [multiplier], program.replace("int main() {", f"int main() {{ {wide}"))


def test_example(tmp_path: Path) -> None:
    multipliers = [of_circuit(name) for name in ("mul8u_truncated_k6", "mul8s_array")]
    texts = hls_files(multipliers)
    assert texts == hls_files(multipliers)
    assert set(texts) == {
        "hls/cosearch_product.h",
        "hls/example.cpp",
        "hls/HLS4ML.md",
        "hls/FINN.md",
    }
    assert not any("@NAME" in text or "@CHECKSUM@" in text for text in texts.values())
    table = multipliers[0].lut.table
    output = compiled(tmp_path, multipliers, texts["hls/example.cpp"], "-Ihls", *WARNINGS)
    expected = table[3, 2] + table[5, 4] + table[7, 6]
    assert output.decode().splitlines() == [
        f"sum of three products: {expected}",
        "PASS all products",
    ]
    broken = texts["hls/example.cpp"].replace(
        "cosearch::cosearch_mul8u_truncated_k6", "(int)(a * b) + 0 *", 1
    )
    assert broken.count("(a * b)") == 1
    with pytest.raises(subprocess.CalledProcessError):
        compiled(tmp_path, multipliers, broken, "-Ihls", "-Wno-unknown-pragmas")


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="name of a functor must be a C\\+\\+ name, not '8bit'"):
        HlsMultiplier("8bit", LUT.exact())
    with pytest.raises(InputError, match="netlist of m must compute its table, it does not"):
        HlsMultiplier("m", LUT.exact(), hw.build_multiplier("mul8u_truncated_k6").netlist)
    with pytest.raises(InputError, match="names of functors must be distinct"):
        hls_files([HlsMultiplier("m", LUT.exact()), HlsMultiplier("m", LUT.exact())])


LAYER = """
#include "ap_fixed.h"
#include "ap_int.h"
#include "nnet_utils/nnet_dense_latency.h"
#include "hls/cosearch_product.h"
#include <cstdio>
typedef ap_fixed<8, 4> value_t;
typedef ap_fixed<24, 16> sum_t;
struct config1 {
    static const unsigned n_in = 16, n_out = 256, reuse_factor = 1, multiplier_limit = 1;
    typedef value_t weight_t;
    typedef sum_t accum_t, bias_t;
    template <class x_T, class w_T> using product = nnet::product::NAME<x_T, w_T>;
};
template <class x_T, class w_T, class F> void products() {
    for (int a = 0; a < 1 << x_T::width; a++)
        for (int b = 0; b < 256; b++) {
            x_T x; w_T w;
            x.range(x_T::width - 1, 0) = a; w.range(7, 0) = b;
            auto p = F::product(x, w);
            const int bits = p.range(15, 0).to_uint();
            std::fwrite(&bits, 4, 1, stdout);
        }
}
int main() {
    products<value_t, value_t, nnet::product::NAME<value_t, value_t>>();
    products<ap_int<8>, ap_int<8>, nnet::product::NAME<ap_int<8>, ap_int<8>>>();
    products<ap_ufixed<7, 4>, value_t, nnet::product::NAME<ap_ufixed<7, 4>, value_t>>();
    static value_t data[16], weights[16 * 256];
    static sum_t biases[256], sums[256];
    for (int i = 0; i < 16; i++) data[i].range(7, 0) = 16 * i + 5;
    for (int i = 0; i < 16 * 256; i++) weights[i].range(7, 0) = i;
    nnet::dense_latency<value_t, sum_t, config1>(data, sums, weights, biases);
    for (int j = 0; j < 256; j++) {
        const int bits = (int)sums[j].range(23, 0).to_uint() << 8 >> 8;
        std::fwrite(&bits, 4, 1, stdout);
    }
}
"""


def test_in_a_layer_of_hls4ml(tmp_path: Path) -> None:
    """Fixed-point and integer operands, all pairs; a dense layer of 256 sums, in hls4ml's code."""
    package = importlib.util.find_spec("hls4ml")
    if package is None or package.origin is None:
        pytest.skip("hls4ml is missing: pip install hls4ml")
    templates = Path(package.origin).parent / "templates" / "vivado"
    multiplier = of_circuit("mul8s_truncated_k6")
    table = multiplier.lut.table
    includes = [f"-I{templates}", f"-I{templates / 'ap_types'}", f"-I{tmp_path}", "-w"]
    output = compiled(tmp_path, [multiplier], LAYER.replace("NAME", multiplier.name), *includes)
    values = np.frombuffer(output, np.int32)
    for start in (0, 65536):
        assert np.array_equal(values[start : start + 65536].reshape(256, 256), table & 0xFFFF)
    half = values[131072 : 131072 + 32768].reshape(128, 256)
    assert np.array_equal(half, table[:128] & 0xFFFF)
    data, weights = 16 * np.arange(16) + 5, (np.arange(16 * 256) & 255).reshape(16, 256)
    assert np.array_equal(values[131072 + 32768 :], table[data[:, None], weights].sum(axis=0))
