"""The search on the handwritten digits: time of a step, what candidates cost, the supernet's truth.

``python -m benchmarks.search [RUN]``. Without a run the time of one DARTS step (alphas, betas and
weights, batch 64) is measured with the default space: for the default candidates, for one
candidate, and for as many copies of one table as there are candidates (same joint rank). With the
folder of a finished run its accuracy, energy and time are compared with what the main job must
reach.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.measurement import Measurement, print_machine, print_measurement, ratio, seconds
from cosearch.array_model import ArrayModel
from cosearch.config import Config, Search
from cosearch.layer_use import LayerUse
from cosearch.objective import Objective
from cosearch.space import SearchSpace
from cosearch.strategies import Batch, Step, strategy
from cosearch.strategies.strategy import Optimisers
from cosearch.supernet import Supernet
from cosearch.terms import CostedSpace, MultiplierFigures, terms_of
from hw import build_multiplier
from lut import LUT, Candidates

SHAPE, BATCH = (1, 8, 8), 64


def supernet(luts: list[LUT]) -> Supernet:
    """The default space with these candidates, the first being exact."""
    space = Config().space
    torch.manual_seed(0)
    return Supernet(
        SearchSpace(space.channels, space.cells, space.nodes, space.operations, SHAPE[0], 10),
        Candidates(luts),
        Candidates(luts[:1]),
    )


def check(luts: list[LUT]) -> None:
    """A supernet whose betas are one-hot equals the supernet that has that candidate alone."""
    several, images = supernet(luts), torch.rand(4, *SHAPE)
    for index, lut in enumerate(luts):
        alone = supernet([lut])
        alone.stem, alone.classifier = several.stem, several.classifier
        with torch.no_grad():
            for betas in (several.betas, several.preprocess_betas):
                for parameter in betas.values():
                    parameter.zero_()
                    parameter[..., index] = 1e4
            alone.cells.load_state_dict(several.cells.state_dict())
            alone.alphas.load_state_dict(several.alphas.state_dict())
            assert torch.equal(several.eval()(images), alone.eval()(images)), lut.name


def step(luts: list[LUT]) -> Callable[[], object]:
    """One step of first-order DARTS on random images."""
    net = supernet(luts)
    figures = [MultiplierFigures(fj, 1000.0) for fj in torch.linspace(1.0, 0.4, len(luts)).tolist()]
    array = ArrayModel(Config().hardware, None)
    space = CostedSpace(LayerUse.of(net, SHAPE), tuple(figures), figures[0], array)
    objective = Objective(space.use, terms_of(space, Search(energy_weight=0.5)))
    optimisers = Optimisers(
        torch.optim.SGD(net.weight_parameters(), 0.025, momentum=0.9),
        torch.optim.Adam(net.architecture_parameters(), 3e-3),
        5.0,
    )
    batch = Batch(torch.rand(BATCH, *SHAPE), torch.randint(0, 10, (BATCH,)))
    darts = strategy("darts")
    return lambda: darts.step(Step(net, objective, optimisers, batch, batch, warming_up=False))


def measure_steps() -> None:
    luts = [LUT.of(build_multiplier(name)) for name in Config().multipliers.candidates]
    check(luts)
    most = max(luts, key=lambda lut: lut.rank)
    print_measurement(Measurement("search_step", round(seconds(step(luts)), 4), "s"))
    several, one = step([most] * len(luts)), step([most])
    cost = ratio(several, one, repetitions=5)
    metric = f"step_{len(luts)}_candidates_vs_1_of_same_joint_rank"
    print_measurement(Measurement(metric, round(cost, 3), "ratio", 1.3))
    cost = ratio(step(luts), step(luts[:1]), repetitions=5)
    print_measurement(Measurement("step_default_candidates_vs_exact", round(cost, 3), "ratio"))


def measure_run(folder: Path) -> None:
    evaluation = json.loads((folder / "evaluation.json").read_text())
    stages = json.loads((folder / "run.json").read_text())["stages"]
    networks = evaluation["networks"]
    found, exact = (networks[role]["accuracy"] for role in ("approximate", "exact"))
    total = sum(stage["seconds"] for stage in stages.values())
    for measurement in (
        Measurement("run_time", round(total, 1), "s", 240.0),
        Measurement("test_accuracy", found, "ratio", 0.96, "higher"),
        Measurement("accuracy_lost_against_exact_int8", exact - found, "ratio", 0.01),
        Measurement(
            "multiplication_energy_saved", evaluation["energy_saved"], "ratio", 0.30, "higher"
        ),
    ):
        print_measurement(measurement)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, help="folder of a finished run")
    run = parser.parse_args().run
    print_machine()
    measure_steps() if run is None else measure_run(run)


if __name__ == "__main__":
    main()
