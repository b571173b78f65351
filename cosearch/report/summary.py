"""The summary of a run in plain text, for a terminal."""

from .charts import TITLES, energy_text
from .results import NetworkResult, Results


def summary(results: Results) -> str:
    """Accuracy of the networks, energy saved, and where the files are."""
    points = _points(results)
    lines = [
        f"accuracy on {results.test_images} test images, energy of one inference",
        *(_network_line(network) for network in results.networks),
        f"energy saved: {_percent(results.energy_saved)}, accuracy {points} against exact int8",
        f"energy of: {results.basis}",
        *_lines(results),
        "",
        *_places(results),
    ]
    return "\n".join(lines)


def _network_line(network: NetworkResult) -> str:
    energy = "-" if network.energy_nj is None else energy_text(network.energy_nj)
    return f"  {TITLES[network.role]:<12} {_percent(network.accuracy):>9}  {energy:>12}"


def _lines(results: Results) -> list[str]:
    """Each line of energy, and the latency, of all networks."""
    if not results.line_names:
        return []
    titles = "".join(f"{TITLES[network.role]:>14}" for network in results.networks)
    rows = [
        (line_title(name), [_energy(network, name) for network in results.networks])
        for name in results.line_names
    ]
    rows.append(("latency", [_latency(network) for network in results.networks]))
    return [
        f"{f'by line, {results.basis.operands} operands':<32}{titles}",
        *(f"  {title:<30}" + "".join(f"{cell:>14}" for cell in cells) for title, cells in rows),
    ]


def line_title(name: str) -> str:
    """A line's name as it is read."""
    return name.replace("_", " ")


def _energy(network: NetworkResult, name: str) -> str:
    return energy_text(network.lines_nj[name]) if name in network.lines_nj else "-"


def _latency(network: NetworkResult) -> str:
    return "-" if network.latency_ms is None else f"{network.latency_ms:.4g} ms"


def _points(results: Results) -> str:
    difference = results.network("approximate").accuracy - results.network("exact").accuracy
    return f"{difference * 100:+.2f} points"


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.2f} %"


def _places(results: Results) -> list[str]:
    places = [("run", results.folder), ("report", results.folder / "report.html")]
    if results.bundle:
        places.append(("bundle", results.folder / "bundle"))
    return [f"{what + ':':<8} {path}" for what, path in places]
