"""A multiplier for operands of the other kind: an unsigned one for two's complement, and back."""

from lut import LUT

from .structural import bit_range, comment

__all__ = ["converted_verilog", "converted_width"]


def converted_width(lut: LUT) -> int:
    """Bits of the converted multiplier's product: as many as the multiplier's own.

    More where the products of an unsigned one between magnitudes and a sign need more (a product
    that is far too large).
    """
    width = lut.a_width + lut.b_width
    if lut.a_signed:
        return width
    table = lut.sign_magnitude().table
    return max(
        width, *(int(v if v >= 0 else ~v).bit_length() + 1 for v in (table.min(), table.max()))
    )


def converted_verilog(lut: LUT, multiplier: str, module: str, header: str) -> str:
    """Module ``module`` with ports a, b and p around the module ``multiplier``.

    Unsigned multipliers become signed between magnitudes, as ``LUT.sign_magnitude`` says, a zero
    operand giving zero. Signed ones become unsigned, their operands one bit narrower, p the same
    two's complement number (below zero only where the multiplier errs so far).
    """
    lines = _unsigned(lut, multiplier) if lut.a_signed else _signed(lut, multiplier)
    return "\n".join([*comment(header), f"module {module}(a, b, p);", *lines, "endmodule"]) + "\n"


def _signed(lut: LUT, multiplier: str) -> list[str]:
    a, b, p, width = lut.a_width, lut.b_width, lut.a_width + lut.b_width, converted_width(lut)
    product = "magnitude" if width == p else f"{{{width - p}'d0, magnitude}}"
    return [
        f"  input [{a - 1}:0] a;",
        f"  input [{b - 1}:0] b;",
        f"  output [{width - 1}:0] p;",
        "",
        "  // the magnitude of the lowest operand is its own bit pattern",
        f"  wire [{a - 1}:0] a_magnitude = a[{a - 1}] ? -a : a;",
        f"  wire [{b - 1}:0] b_magnitude = b[{b - 1}] ? -b : b;",
        f"  wire [{p - 1}:0] magnitude;",
        f"  {multiplier} multiplier(.a(a_magnitude), .b(b_magnitude), .p(magnitude));",
        "",
        f"  wire [{width - 1}:0] product = {product};",
        f"  assign p = a == {a}'d0 || b == {b}'d0 ? {width}'d0",
        f"    : a[{a - 1}] ^ b[{b - 1}] ? -product : product;",
    ]


def _unsigned(lut: LUT, multiplier: str) -> list[str]:
    return [
        f"  input {bit_range(lut.a_width - 1)}a;",
        f"  input {bit_range(lut.b_width - 1)}b;",
        f"  output [{converted_width(lut) - 1}:0] p;",
        "",
        f"  {multiplier} multiplier(.a({{1'b0, a}}), .b({{1'b0, b}}), .p(p));",
    ]
