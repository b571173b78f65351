"""The report: every figure from the run's files, one self-contained page, all text escaped."""

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cosearch.config import Config
from cosearch.genotype import CellGenotype, Gene, MultiplierChoice
from cosearch.pipeline import run_stage
from cosearch.progress import Progress
from cosearch.report import Results, page, read_results, summary
from cosearch.report.cells import LANE, Layout, cell_graph
from cosearch.report.charts import Series, curves, energy_text, spread, tick_text, ticks
from cosearch.report.page import relative_energies, search_curves
from cosearch.run_folder import RunFolder
from hw.errors import InputError

from .example_run import FIGURES, evaluation, finished_run, genotype, library

VOID = {"meta", "br", "link", "img", "hr", "input"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return finished_run(tmp_path / "run")


@pytest.fixture
def results(run: RunFolder) -> Results:
    return read_results(run)


class Balance(HTMLParser):
    """Checks that tags close in order, and collects what could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag in ("script", "iframe", "object"):
            self.references.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def drawings(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg .*?</svg>", html, re.S)]


def test_the_page_is_well_formed_and_loads_nothing(results: Results) -> None:
    html = page(results)
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert parser.references == []
    assert "url(" not in html
    assert "@import" not in html
    assert len(drawings(html)) == 9


def test_the_same_results_give_the_same_page(results: Results, run: RunFolder) -> None:
    assert page(results) == page(read_results(RunFolder.open(run.path)))


def test_the_page_shows_the_figures(results: Results) -> None:
    html = page(results)
    words = ["98.33", "−0.37 points", "30.2", "100.1", "143.4", *FIGURES]
    words += [
        "dil_conv_5x5",
        "skip_connect",
        "cells.2.edge_2",
        "seed 0",
        "rtl/src/cosearch_mul8s_truncated_k6.v",
    ]
    for word in words:
        assert word in html


def test_lines_and_latency_are_shown_where_they_are_known(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    assert read_results(run).line_names == ()
    assert "Energy by line" not in page(read_results(run))
    assert "by line" not in summary(read_results(run))
    content = json.loads(run.evaluation.read_text())
    lines = {"multiplications": 100.1, "off_chip_memory": 443.25}
    found = {"energy_lines_nj": lines, "latency_ms": 0.007819, "clocks": 3001, "period_ps": 2605.5}
    nothing = {"latency_ms": None, "clocks": None, "period_ps": None}
    content["networks"]["approximate"] |= found
    content["networks"]["exact"] |= found | {"latency_ms": 0.009}
    content["networks"]["fp32"] |= {"energy_lines_nj": {"multiplications": 409.3}} | nothing
    run.evaluation.write_text(json.dumps(content))
    results = read_results(run)
    html, text = page(results), summary(results)
    for word in ("off chip memory", "443.2 nJ", "409.3 nJ", "0.007819 ms", "0.009 ms"):
        assert word in html and word in text
    assert "3,001" in html and "2606 ps" in html


def test_every_energy_is_named(results: Results) -> None:
    html = page(results)
    named = (
        "multipliers only; no accumulators, registers or memory; example45 at 500 MHz; "
        "activity: uniform operands, zero delay"
    )
    assert html.count(named) >= 2
    assert named in summary(results)
    assert "example45 at 500 MHz" in html.partition("<h2>Multipliers</h2>")[2]


def test_every_axis_has_its_unit(results: Results) -> None:
    html = page(results)
    for label in (
        "energy of the multiplications of one inference (nJ)",
        "test accuracy (%)",
        "energy of one inference (nJ)",
        "relative to exact int8",
        "mean entropy (1: undecided)",
        "cross-entropy (nats)",
        "training accuracy (%)",
    ):
        assert f">{label}</text>" in html


def test_text_is_escaped(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    attack = '<script>alert("x")</script>&'
    content = evaluation()
    content["energy"] = {**content["energy"], "library": attack}  # type: ignore[dict-item]
    content["layers"][0]["layer"] = attack  # type: ignore[index]
    run.evaluation.write_text(json.dumps(content))
    html = page(read_results(run))
    assert "<script" not in html
    assert "&lt;script&gt;alert(" in html
    drawings(html)


def test_the_summary(results: Results) -> None:
    lines = summary(results).splitlines()
    assert lines[0] == "accuracy on 539 test images, energy of one inference"
    assert lines[1].split() == ["approximate", "97.96", "%", "100.1", "nJ"]
    assert lines[2].split() == ["exact", "int8", "98.33", "%", "143.4", "nJ"]
    assert lines[3].split() == ["fp32", "98.52", "%", "-"]
    assert lines[4] == "energy saved: 30.21 %, accuracy -0.37 points against exact int8"
    assert lines[-2] == f"report:  {results.folder / 'report.html'}"


def test_the_stage_writes_the_page(run: RunFolder) -> None:
    run_stage(run, "report", Progress(quiet=True))
    assert run.report.read_text().startswith("<!DOCTYPE html>")
    assert run.finished("report")


def test_a_run_without_metrics_has_a_report_without_curves(run: RunFolder) -> None:
    run.search_metrics.unlink()
    run.train_metrics.unlink()
    html = page(read_results(run))
    assert "The search</h2>" not in html
    assert len(drawings(html)) == 4


def test_metrics_that_are_missing_are_left_out() -> None:
    rows = [{"epoch": 0, "expected_energy": 0.5}, {"epoch": 1, "expected_energy": None}]
    assert len(search_curves(rows)) == 1


def test_one_epoch_is_a_mark() -> None:
    chart = curves("A", "b", [Series("c", [0], [1.0], "blue")])
    assert "<circle" in chart
    ElementTree.fromstring(chart)


@pytest.mark.parametrize("name", ["evaluation", "library", "genotype"])
def test_a_malformed_file_is_named(run: RunFolder, name: str) -> None:
    content = {"evaluation": evaluation(), "library": library(), "genotype": genotype()}[name]
    path = {
        "evaluation": run.evaluation,
        "library": run.luts / "library.json",
        "genotype": run.genotype,
    }[name]
    for key in content:
        if key in ("cell_library", "clock_mhz", "nodes") or (name, key) == ("library", "format"):
            continue
        broken = {k: v for k, v in content.items() if k != key}
        path.write_text(json.dumps(broken))
        refused(run, path)
        path.write_text(json.dumps({**broken, key: 3.5}))
        if not isinstance(content[key], (int, float)):
            refused(run, path)
    for text in ("", "[]", "null", "{"):
        path.write_text(text)
        refused(run, path)
    path.unlink()
    refused(run, path)


def refused(run: RunFolder, path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_results(run)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message


def test_relative_energies_are_to_the_exact_of_the_same_sign(results: Results) -> None:
    relative = relative_energies(results.multipliers)
    assert relative["mul8s_array"] == relative["mul8u_array"] == 1.0
    assert relative["mul8u_truncated_k6"] == pytest.approx(260 / 405)


def gene(operation: str, source: int, name: str | None = "mul8s_array") -> Gene:
    return Gene(operation, source, None if name is None else MultiplierChoice(name, "0" * 64))


def cell(nodes: int) -> CellGenotype:
    """A cell in which every node reads the first input and the node before it."""
    choice = MultiplierChoice("mul8s_array", "0" * 64)
    pairs = tuple(
        (gene("sep_conv_5x5", 0), gene("max_pool_3x3", number + 1, None)) for number in range(nodes)
    )
    return CellGenotype((choice, choice), pairs)


@pytest.mark.parametrize("nodes", [1, 2, 4, 8])
def test_boxes_of_a_cell_do_not_overlap_and_lie_inside(nodes: int) -> None:
    drawing = ElementTree.fromstring(cell_graph("normal", cell(nodes), {"mul8s_array": 1.0}))
    height = float(drawing.attrib["viewBox"].split()[3])
    width = float(drawing.attrib["viewBox"].split()[2])
    boxes = [
        tuple(float(e.attrib[k]) for k in ("x", "y", "width", "height"))
        for e in drawing.iter("{http://www.w3.org/2000/svg}rect")
        if e.attrib["class"].split()[0] in ("box", "state")
    ]
    assert len(boxes) == 2 * nodes + 3
    for index, (x, y, w, h) in enumerate(boxes):
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        for other_x, other_y, other_w, other_h in boxes[index + 1 :]:
            apart = x + w <= other_x or other_x + other_w <= x
            assert apart or y + h <= other_y or other_y + other_h <= y


def test_every_edge_has_a_lane_of_its_own() -> None:
    layout = Layout(cell(4))
    lanes = [layout.lane(node, number) for node in range(4) for number in range(2)]
    assert all(b - a == LANE for a, b in itertools.pairwise(lanes))


def test_the_description_of_a_cell_names_its_edges() -> None:
    label = ElementTree.fromstring(cell_graph("normal", cell(2), {})).attrib["aria-label"]
    assert "c(k-2) to node 1: sep_conv_5x5 with mul8s_array" in label
    assert "node 0 to node 1: max_pool_3x3" in label


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (97, 99, [97, 97.5, 98, 98.5, 99]),
        (0, 179, [0, 50, 100, 150]),
        (-0.1, 0.1, [-0.1, -0.05, 0, 0.05, 0.1]),
        (0, 3e-7, [0, 1e-7, 2e-7, 3e-7]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_ticks_over_epochs_are_whole() -> None:
    assert ticks(0, 3, whole=True) == [0, 1, 2, 3]
    assert ticks(0, 11, whole=True) == [0, 3, 6, 9]


def test_ticks_share_their_decimals() -> None:
    assert [tick_text(v, [0, 0.25, 0.5]) for v in (0, 0.25, 0.5)] == ["0.00", "0.25", "0.50"]


def test_ranges_are_never_empty() -> None:
    for values in ([0.0], [5.0, 5.0], [-1.0]):
        low, high = spread(values)
        assert low < high


@pytest.mark.parametrize(
    ("energy", "shown"),
    [
        (0, "0 nJ"),
        (0.012345, "0.01235 nJ"),
        (1.5, "1.500 nJ"),
        (143.42, "143.4 nJ"),
        (12345.6, "12,346 nJ"),
    ],
)
def test_energies_have_four_digits(energy: float, shown: str) -> None:
    assert energy_text(energy) == shown


def test_a_report_of_another_configuration(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", Config(name="other", seed=9, threads=1))
    assert "seed 9" in page(read_results(run))
