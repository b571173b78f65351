"""Yosys as `pip install pyosys` gives it: `python3 scripts/yosys.py [-q] [-l LOG] -s SCRIPT`."""

import argparse
import os
from pathlib import Path


def main() -> None:
    """Run each line of the script as a Yosys command; stop with Yosys' own message at an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-q", action="store_true", help="as it is always: print errors alone")
    parser.add_argument("-l", dest="log", default=os.devnull, help="write the log to this file")
    parser.add_argument("-s", dest="script", required=True, help="the script")
    arguments = parser.parse_args()
    try:
        from pyosys import libyosys
    except ImportError:
        raise SystemExit("Yosys is missing: pip install pyosys") from None
    log = os.open(arguments.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)  # where Yosys writes; its errors go to the standard error output too
    design = libyosys.Design()
    for line in Path(arguments.script).read_text("utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            libyosys.run_pass(line.strip(), design)


if __name__ == "__main__":
    main()
