"""The FuseSoC core of `rtl/`: CAPI2, with targets to lint, to simulate and to synthesise."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from .flow import Flow

__all__ = ["core_file"]

_SYNTHESIS = {
    "ice40": ("icestorm", ["--hx8k", "--package ct256", "--pcf-allow-unconstrained"]),
    "ecp5": ("trellis", ["--25k", "--package CABGA381", "--speed 6", "--lpf-allow-unconstrained"]),
}


def core_file(flow: Flow) -> str:
    """YAML, written by hand: names and paths hold nothing that it would have to quote.

    Targets: one `lint_<module>` a source (Verilator looks at what is below the top module alone),
    one `sim_<bench>` a bench (Icarus), `lint` and `sim` for the first of them; `ice40` and `ecp5`
    (Yosys and nextpnr) of the module that parameter CORE names.
    """
    return "\n".join(
        [
            "CAPI=2:",
            f"name: cosearch::{flow.core_name}:1.0.0",
            'description: "Approximate multipliers of a network, and an array of them"',
            "",
            *_filesets(flow),
            "",
            *_parameters(flow),
            "",
            *_targets(flow),
            "",
        ]
    )


def _filesets(flow: Flow) -> Iterator[str]:
    yield "filesets:"
    yield from _fileset("rtl", flow.sources, "verilogSource-2005")
    yield from _fileset("registered", ["scripts/registered.v"], "verilogSource-2005")
    yield from _fileset("ice40", ["constraints/ice40_hx8k_ct256.pcf"], "PCF")
    yield from _fileset("ecp5", ["constraints/ecp5_25f_cabga381.lpf"], "LPF")
    for bench in flow.benches:
        name = f"bench_{PurePosixPath(bench).stem}"
        yield from _fileset(name, [*flow.helpers, bench], "verilogSource-2005")
    if flow.data:
        yield "  data:"
        yield "    file_type: user"
        yield "    files:"
        for path in flow.data:  # as from rtl/, and as from tb/
            for place in (path, path.removeprefix("tb/")):
                yield f"      - {path}: {{copyto: {place}}}"


def _fileset(name: str, paths: Sequence[str], file_type: str) -> Iterator[str]:
    yield f"  {name}:"
    yield f"    file_type: {file_type}"
    yield "    files:"
    yield from (f"      - {path}" for path in paths)


def _parameters(flow: Flow) -> Iterator[str]:
    first = flow.modules[0]
    yield "parameters:"
    yield f"  CORE: {{datatype: str, paramtype: vlogdefine, default: {first.name}}}"
    for name, width in (("A", first.a_width), ("B", first.b_width), ("P", first.p_width)):
        yield f"  {name}_WIDTH: {{datatype: int, paramtype: vlogdefine, default: {width}}}"


def _targets(flow: Flow) -> Iterator[str]:
    modules, benches = _stems(flow.sources), _stems(flow.benches)
    yield "targets:"
    yield "  default:"
    yield "    filesets: [rtl]"
    yield "  lint: &lint"
    yield "    flow: lint"
    yield "    flow_options: {tool: verilator, verilator_options: [-Wall, -Wno-MULTITOP]}"
    yield "    filesets: [rtl]"
    yield f"    toplevel: {modules[0]}"
    yield from (f"  lint_{name}: {{<<: *lint, toplevel: {name}}}" for name in modules)
    for target, bench in [*(("sim", name) for name in benches[:1]), *_named("sim", benches)]:
        yield f"  {target}:"
        yield "    flow: sim"
        yield "    flow_options: {tool: icarus, iverilog_options: [-g2005]}"
        yield f"    filesets: [rtl, bench_{bench}{', data' if flow.data else ''}]"
        yield f"    toplevel: {bench}"
    for family, (tool, options) in _SYNTHESIS.items():
        yield f"  {family}:"
        yield f"    flow: {tool}"
        yield f"    flow_options: {{nextpnr_options: [{', '.join(options)}]}}"
        yield f"    filesets: [rtl, registered, {family}]"
        yield "    parameters: [CORE, A_WIDTH, B_WIDTH, P_WIDTH]"
        yield "    toplevel: registered"


def _named(prefix: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((f"{prefix}_{name}", name) for name in names)


def _stems(paths: Sequence[str]) -> list[str]:
    """The modules: each is named as its file."""
    return [PurePosixPath(path).stem for path in paths]
