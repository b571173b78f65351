"""Pin constraints for the registered multiplier on two FPGAs: real pins, any of which may be moved.

Pins of the iCE40 HX8K in its CT256 package after Project IceStorm's pin list; pins of the ECP5 in
CABGA381 are those that the ULX3S board brings out (its published constraint file). nextpnr refuses
a pin that the package does not have.
"""

__all__ = ["lpf", "pcf"]

CLOCK_MHZ = 50
ICE40_CLOCK = "J3"
ICE40_PINS = (
    "A1 A2 A5 A6 A7 A9 A10 A11 A15 A16 B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11 B12 B13 B14 B15 B16 "
    "C1 C10 C11 C12 C13 C14"
)
ECP5_CLOCK = "G2"
ECP5_PINS = (
    "B11 C11 A10 A11 A9 B10 B9 C10 A7 A8 C8 B8 C6 C7 A6 B6 A4 A5 A2 B1 C4 B4 F4 E3 G3 F3 H4 G5 "
    "U18 U17 N17 P16"
)
PORTS = [
    f"{name}[{bit}]" for name, width in (("a", 8), ("b", 8), ("p", 16)) for bit in range(width)
]


def pcf() -> str:
    """Of nextpnr-ice40: iCE40 HX8K, package CT256."""
    lines = [
        f"set_io -nowarn {port} {pin}" for port, pin in zip(PORTS, ICE40_PINS.split(), strict=True)
    ]
    return "\n".join(
        [
            "# iCE40 HX8K, CT256: registered.v. Move the pins to those of your board.",
            f"set_io clk {ICE40_CLOCK}",
            f"set_frequency clk {CLOCK_MHZ}",
            *lines,
            "",
        ]
    )


def lpf() -> str:
    """Of nextpnr-ecp5: ECP5 25F, package CABGA381."""
    lines = [
        f'LOCATE COMP "{port}" SITE "{pin}";\nIOBUF PORT "{port}" IO_TYPE=LVCMOS33;'
        for port, pin in zip(["clk", *PORTS], [ECP5_CLOCK, *ECP5_PINS.split()], strict=True)
    ]
    return "\n".join(
        [
            "# ECP5 25F, CABGA381: registered.v. Move the pins to those of your board.",
            f'FREQUENCY PORT "clk" {CLOCK_MHZ} MHZ;',
            *lines,
            "",
        ]
    )
