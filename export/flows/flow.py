"""The Makefile, scripts, constraints and core file of `rtl/`, for what it holds."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from hw.errors import InputError

from .constraints import lpf, pcf

__all__ = ["Flow", "FlowModule", "flow_files"]

_MODULE_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PATH = re.compile(r"(\w[\w.-]*/)+\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class FlowModule:
    """A structural multiplier: module `name` in `src/<name>.v`, ports a, b and p of these bits.

    Its other forms are found by their names: `src/<name>_behavioural.v`, `src/<name>_pipelined.v`.
    """

    name: str
    a_width: int = 8
    b_width: int = 8
    p_width: int = 16

    def __post_init__(self) -> None:
        if not _MODULE_NAME.fullmatch(self.name):
            raise InputError(f"module must be a Verilog name, not {self.name!r}")
        if min(self.a_width, self.b_width, self.p_width) < 1:
            raise InputError(f"ports of module {self.name} must have at least one bit")


@dataclass(frozen=True)
class Flow:
    """What `rtl/` holds. Paths are relative to `rtl/`.

    sources: every Verilog file that is synthesised, each a module of the file's name. benches:
    Verilog benches `tb/<module>.v`, each a top module that finds its data as from `rtl/` or as from
    `tb/` and prints PASS or FAIL at the beginning of a line. helpers: modules of benches. cocotb:
    Python scripts that run cocotb's tests, from `rtl/`, and exit with 0 if they pass. data: files
    that benches read.
    """

    name: str
    modules: Sequence[FlowModule]
    sources: Sequence[str]
    benches: Sequence[str] = ()
    helpers: Sequence[str] = ()
    cocotb: Sequence[str] = ()
    data: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.modules:
            raise InputError("modules of a flow must be at least one, not none")
        if not self.sources:
            raise InputError("sources of a flow must be at least one, not none")
        for path in (*self.sources, *self.benches, *self.helpers, *self.cocotb, *self.data):
            if not _PATH.fullmatch(path):
                raise InputError(f"path must be letters, digits, _ . - and / alone, not {path!r}")
        for path in self.benches:
            if not re.fullmatch(r"tb/\w+\.v", path, re.ASCII):
                raise InputError(f"bench must be tb/<module>.v, not {path!r}")

    @property
    def core_name(self) -> str:
        """The name for FuseSoC, without what separates its parts."""
        return re.sub(r"\W", "_", self.name, flags=re.ASCII)

    @classmethod
    def of(cls, name: str, modules: Sequence[FlowModule], paths: Iterable[str]) -> "Flow":
        """The flow of a folder with these files, told apart by where they lie.

        Verilog in `src/` and `array/` is sources; in `tb/` it is a bench, or, where its name ends
        in `_variants`, a helper; Python in `tb/` runs cocotb, unless its name begins with `test_`;
        the rest of `tb/` is data.
        """
        ordered = sorted(paths)
        benches = [path for path in ordered if re.fullmatch(r"tb/\w+\.v", path, re.ASCII)]
        scripts = [path for path in ordered if re.fullmatch(r"tb/.*\.py", path)]
        helpers = [path for path in benches if path.endswith("_variants.v")]
        return cls(
            name,
            modules,
            [path for path in ordered if re.fullmatch(r"(src|array)/\w+\.v", path, re.ASCII)],
            [path for path in benches if path not in helpers],
            helpers,
            [path for path in scripts if not path.rpartition("/")[2].startswith("test_")],
            [p for p in ordered if p.startswith("tb/") and p not in {*benches, *scripts}],
        )


def flow_files(flow: Flow) -> Mapping[str, str]:
    """Path under `rtl/` and text of every file; the same flow gives the same texts."""
    from .fusesoc import core_file

    texts = dict(sorted(_static_files(files(__package__) / "files", "")))
    texts["Makefile"] = _filled(texts["Makefile"], flow)
    texts["README.md"] = _filled(texts["README.md"], flow)
    texts["constraints/ice40_hx8k_ct256.pcf"] = pcf()
    texts["constraints/ecp5_25f_cabga381.lpf"] = lpf()
    texts["cosearch.core"] = core_file(flow)
    return texts


def _static_files(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for item in folder.iterdir():
        if item.is_dir() and item.name != "__pycache__":
            yield from _static_files(item, f"{prefix}{item.name}/")
        elif item.is_file():
            yield f"{prefix}{item.name}", item.read_text("utf-8")


def _filled(text: str, flow: Flow) -> str:
    widths = (f"WIDTHS_{m.name} := {m.a_width} {m.b_width} {m.p_width}" for m in flow.modules)
    values = {
        "@NAME@": flow.name,
        "@CORE_NAME@": flow.core_name,
        "@MODULES@": " ".join(module.name for module in flow.modules),
        "@BENCHES@": " ".join(flow.benches),
        "@COCOTB@": " ".join(flow.cocotb),
        "@WIDTHS@": "\n".join(widths),
    }
    for key, value in values.items():
        text = text.replace(key, value)
    return text
