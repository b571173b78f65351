"""Imports point one way, hw <- lut <- export <- cosearch; what starts fast loads nothing slow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "hw": {"hw"},
    "lut": {"hw", "lut"},
    "export": {"hw", "lut", "export"},
    "cosearch": {"hw", "lut", "export", "cosearch"},
}
SLOW = ("torch", "matplotlib", "sklearn", "amaranth", "numpy", "networkx", "onnx", "pyosys")


def imported(tree: ast.AST) -> Iterator[str]:
    """Top-level packages that a module imports anywhere in it, relative imports left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def escapes(tree: ast.AST, depth: int) -> bool:
    """Whether a relative import leaves the package of a module ``depth`` folders inside it."""
    return any(isinstance(node, ast.ImportFrom) and node.level > depth for node in ast.walk(tree))


def violations(root: Path) -> list[str]:
    found = []
    for package, allowed in MAY_IMPORT.items():
        for path in sorted((root / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            where = path.relative_to(root)
            forbidden = set(MAY_IMPORT) - allowed | ({"torch"} if package == "hw" else set())
            found += [f"{where} imports {name}" for name in imported(tree) if name in forbidden]
            if escapes(tree, len(where.parts) - 1):
                found.append(f"{where} imports from outside {package}")
    return found


def test_imports_point_one_way() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("package", "line", "complaint"),
    [
        ("hw", "import torch", "imports torch"),
        ("hw", "def f():\n    from torch import nn", "imports torch"),
        ("hw", "from lut import LUT", "imports lut"),
        ("lut", "import cosearch.config as c", "imports cosearch"),
        ("lut", "import export", "imports export"),
        ("export", "from cosearch.genotype import Genotype", "imports cosearch"),
        ("hw", "from ... import cosearch", "imports from outside hw"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, package: str, line: str, complaint: str) -> None:
    module = tmp_path / package / "part" / "module.py"
    module.parent.mkdir(parents=True)
    module.write_text(f"import json\n{line}\n")
    assert violations(tmp_path) == [f"{package}/part/module.py {complaint}"]


def loaded_after(code: str) -> set[str]:
    """Which slow packages a fresh interpreter has loaded after ``code``."""
    check = f"import sys\n{code}\nprint(*[m for m in {SLOW!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_nothing_slow() -> None:
    code = (
        "import contextlib, io\nfrom cosearch.cli import app\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    app(['run', '--help'], standalone_mode=False)\n"
        "    app(['--help'], standalone_mode=False)"
    )
    assert loaded_after(code) == set()


def test_the_check_of_loaded_packages_sees_them() -> None:
    assert "numpy" in loaded_after("import numpy")


def test_hw_loads_no_torch() -> None:
    assert "torch" not in loaded_after("import hw")


def test_reading_a_configuration_loads_no_torch() -> None:
    assert "torch" not in loaded_after("from cosearch.config import load_config; load_config()")


def test_importing_the_report_and_the_data_sets_loads_no_torch() -> None:
    assert "torch" not in loaded_after("import cosearch.report, cosearch.data, cosearch.pipeline")
