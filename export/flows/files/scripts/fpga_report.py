"""One line from nextpnr's report: `python3 scripts/fpga_report.py NAME REPORT.json`."""

import json
import sys
from pathlib import Path

# Cells that hold logic; the four-input look-up tables are ICESTORM_LC and TRELLIS_COMB.
LOGIC = ("ICESTORM_LC", "TRELLIS_COMB", "TRELLIS_FF", "ICESTORM_DSP", "MULT18X18D")


def main() -> None:
    """Print the cells used and the frequency that the clock reached."""
    name, path = sys.argv[1:]
    report = json.loads(Path(path).read_text("utf-8"))
    cells = {
        kind: report["utilization"][kind]["used"] for kind in LOGIC if kind in report["utilization"]
    }
    words = [f"{count} {kind}" for kind, count in cells.items() if count]
    words += [f"{clock['achieved']:.1f} MHz" for clock in report["fmax"].values()]
    sys.stdout.write(f"{name}: {', '.join(words)}\n")


if __name__ == "__main__":
    main()
