"""Accuracy and energy of the three networks on the test images.

The emulated networks are judged as the integer networks that are exported, the fp32 one as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cosearch.device import placed, torch_device
from cosearch.genotype import Genotype, check_hardware
from cosearch.layers import layer_records
from cosearch.network_costs import NetworkCosts, float_costs, network_costs
from cosearch.run_folder import ROLES, RunFolder
from cosearch.task import Task, read_genotype
from cosearch.training import network_for, trained_network
from export import IntegerNetwork, integerise

__all__ = ["LayerEnergy", "evaluation", "integer_network", "layer_energies", "operation_of"]

FLOAT_BATCH = 256
COUNTS = (
    "multiplications of all convolutions and of the classifier, padding included; "
    "accumulators, registers and memory are lines of their own"
)


@dataclass(frozen=True)
class LayerEnergy:
    """One layer of the found network; energies of one inference in nJ."""

    layer: str
    operation: str
    multiplier: str
    lut_sha256: str
    macs: int
    energy_nj: float
    exact_energy_nj: float
    energy_lines_nj: Mapping[str, float]
    clocks: int

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def integer_network(role: str, task: Task, genotype: Genotype, run: RunFolder) -> IntegerNetwork:
    """The trained network of `role` as the integers that hardware computes; InputError where the
    genotype has noise, which it cannot.
    """
    check_hardware(genotype, str(run.genotype))
    network = trained_network(role, task, genotype, run)
    return integerise(network, task.input_shape, task.data.pixel_scale)


def layer_energies(
    network: IntegerNetwork, task: Task, genotype: Genotype, costs: NetworkCosts
) -> tuple[LayerEnergy, ...]:
    """Every layer in topological order: its multiplications times the energy of its multiplier."""
    exact_fj = task.library[task.exact.name].cost.energy_fj
    return tuple(
        LayerEnergy(
            layer=node.layer,
            operation=operation_of(node.layer, task, genotype),
            multiplier=node.lut.name,
            lut_sha256=node.lut.digest,
            macs=node.macs,
            energy_nj=node.macs * task.library[node.lut.name].cost.energy_fj * 1e-6,
            exact_energy_nj=node.macs * exact_fj * 1e-6,
            energy_lines_nj=cost.lines_nj,
            clocks=cost.clocks,
        )
        for node, cost in zip(network.convolutions, costs.layers, strict=True)
    )


def role_costs(
    found: IntegerNetwork, task: Task, genotype: Genotype
) -> dict[str, NetworkCosts | None]:
    """Of the three networks; None for fp32 where the run has no figures of an array."""
    network = network_for("approximate", task, genotype)
    by_path = {layer.path: layer for layer in layer_records(network, task.input_shape)}
    layers = [by_path[node.layer] for node in found.convolutions]
    used = [task.multiplier_figures(node.lut.name) for node in found.convolutions]
    exact = [task.multiplier_figures(task.exact_name)] * len(layers)
    return {
        "approximate": network_costs(layers, used, task.array),
        "exact": network_costs(layers, exact, task.array),
        "fp32": None if task.figures is None else float_costs(layers, task.array),
    }


def evaluation(run: RunFolder) -> dict[str, Any]:
    """What ``evaluation.json`` holds."""
    task, genotype = Task.of(run), read_genotype(run)
    found = integer_network("approximate", task, genotype, run)
    costs = role_costs(found, task, genotype)
    assert costs["approximate"] is not None
    layers = layer_energies(found, task, genotype, costs["approximate"])
    energy = sum(layer.energy_nj for layer in layers)
    exact_energy = sum(layer.exact_energy_nj for layer in layers)
    macs = sum(layer.macs for layer in layers)
    energies = {"approximate": energy, "exact": exact_energy, "fp32": None}
    cost = next(iter(task.library)).cost
    return {
        "test_images": len(task.data.splits["test"]),
        "networks": {
            role: {
                "accuracy": _accuracy(role, task, genotype, run),
                "energy_nj": energies[role],
                "macs": macs,
                **_costs_json(costs[role]),
            }
            for role in ROLES
        },
        "energy_saved": 1 - energy / exact_energy,
        "array": {
            "rows": task.config.hardware.array_rows,
            "columns": task.config.hardware.array_columns,
            "accumulator_width": task.config.hardware.accumulator_width,
            "product_register": task.config.hardware.product_register,
        },
        "energy": {
            "library": cost.library,
            "clock_mhz": cost.clock_mhz,
            "activity": cost.activity,
            "counts": COUNTS,
            "operands": "uniform" if task.operands is None else "gathered",
        },
        "layers": [layer.to_json() for layer in layers],
    }


def _costs_json(costs: NetworkCosts | None) -> dict[str, Any]:
    """Lines, latency and the array's clock, None where they are not known."""
    if costs is None:
        return {"energy_lines_nj": None, "clocks": None, "latency_ms": None, "period_ps": None}
    return {
        "energy_lines_nj": costs.lines_nj,
        "clocks": None if costs.period_ps is None else costs.clocks,
        "latency_ms": costs.latency_ms,
        "period_ps": costs.period_ps,
    }


def _accuracy(role: str, task: Task, genotype: Genotype, run: RunFolder) -> float:
    """Share of test images that are classified right."""
    device = torch_device(task.config.device)
    test = task.data.splits["test"].to(device)
    if role == "fp32":
        logits = _float_logits(task, genotype, run, test.images)
    else:
        logits = integer_network(role, task, genotype, run).to(device)(test.images)
    return int((logits.argmax(1) == test.labels).sum()) / len(test)


@torch.no_grad()
def _float_logits(task: Task, genotype: Genotype, run: RunFolder, images: Tensor) -> Tensor:
    """Of uint8 images, where they are."""
    network = placed(trained_network("fp32", task, genotype, run), images.device)
    scale = task.data.pixel_scale
    parts = [network(part.to(torch.float32) * scale) for part in images.split(FLOAT_BATCH)]
    return torch.cat(parts)


def operation_of(layer: str, task: Task, genotype: Genotype) -> str:
    """What the layer belongs to: an operation's name, "preprocess", "stem" or "classifier"."""
    path = layer.split(".")
    if path[0] != "cells":
        return path[0]
    if path[2] == "preprocess":
        return "preprocess"
    cell = genotype.cell(task.found_space.places[int(path[1])].cell_type)
    genes = [gene for node in cell.nodes for gene in node]
    return genes[int(path[3])].operation
