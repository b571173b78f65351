"""A finished run folder as the stages write it, with figures of a plausible size, for tests."""

import hashlib
import json
import math
from pathlib import Path

from cosearch.config import Config
from cosearch.run_folder import STAGE_FILES, RunFolder

BASIS = {
    "library": "example45",
    "clock_mhz": 500.0,
    "activity": "uniform operands, zero delay",
    "counts": "multipliers only; no accumulators, registers or memory",
}
# name: (energy fJ, delay ps, area µm², MAE, WCE, rank)
FIGURES = {
    "mul8s_array": (412.0, 1480.0, 508.0, 0.0, 0, 1),
    "mul8s_truncated_k4": (350.0, 1410.0, 440.0, 12.25, 49, 5),
    "mul8s_truncated_k6": (268.0, 1290.0, 352.0, 80.25, 321, 7),
    "mul8s_truncated_k7": (223.0, 1180.0, 300.0, 192.25, 769, 8),
    "mul8s_broken_array_h1_v5": (298.0, 1330.0, 380.0, 64.5, 300, 6),
    "mul8s_broken_array_h2_v7": (190.0, 1100.0, 262.0, 301.0, 1290, 6),
    "mul8u_array": (405.0, 1475.0, 500.0, 0.0, 0, 1),
    "mul8u_truncated_k6": (260.0, 1280.0, 345.0, 80.25, 321, 6),
    "mul8u_broken_array_h2_v6": (205.0, 1120.0, 270.0, 270.0, 1100, 6),
}
NORMAL = [
    [("sep_conv_3x3", 0, "mul8s_truncated_k6"), ("skip_connect", 1, None)],
    [("dil_conv_5x5", 0, "mul8s_broken_array_h1_v5"), ("sep_conv_5x5", 2, "mul8s_truncated_k7")],
]
REDUCTION = [
    [("max_pool_3x3", 0, None), ("sep_conv_5x5", 1, "mul8s_broken_array_h2_v7")],
    [("dil_conv_3x3", 2, "mul8s_array"), ("sep_conv_3x3", 1, "mul8s_truncated_k6")],
]


def finished_run(path: Path, config: Config | None = None) -> RunFolder:
    """A new run at ``path`` in which every stage but the report is finished."""
    run = RunFolder.create(path, config or Config(threads=2))
    _write(run.luts / "library.json", library())
    _write(run.genotype, genotype())
    _write_lines(run.search_metrics, [search_row(epoch) for epoch in range(12)])
    _write_lines(run.train_metrics, [train_row(r, e) for r in ROLE_ERRORS for e in range(40)])
    _write(run.evaluation, evaluation())
    for name in ("model.onnx", "manifest.json", "rtl/src/cosearch_mul8s_truncated_k6.v"):
        (run.bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (run.bundle / name).write_text("")
    for stage, seconds in zip(STAGE_FILES, (9.1, 92.4, 61.0, 1.2, 4.5), strict=False):
        run.finish(stage, seconds)
    return run


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def library() -> dict[str, object]:
    return {
        "format": 1,
        "cell_library": BASIS["library"],
        "clock_mhz": BASIS["clock_mhz"],
        "multipliers": [_multiplier(name) for name in FIGURES],
    }


def genotype() -> dict[str, object]:
    return {"format": 1, "nodes": 2, "normal": _cell(NORMAL), "reduction": _cell(REDUCTION)}


def evaluation() -> dict[str, object]:
    layers = [_layer(number, name) for number, name in enumerate(_layer_names())]
    found, exact = (sum(la[key] for la in layers) for key in ("energy_nj", "exact_energy_nj"))
    macs = sum(layer["macs"] for layer in layers)
    return {
        "test_images": 539,
        "networks": {
            "approximate": {"accuracy": 528 / 539, "energy_nj": found, "macs": macs},
            "exact": {"accuracy": 530 / 539, "energy_nj": exact, "macs": macs},
            "fp32": {"accuracy": 531 / 539, "energy_nj": None, "macs": macs},
        },
        "energy_saved": 1 - found / exact,
        "energy": BASIS,
        "layers": layers,
    }


def search_row(epoch: int) -> dict[str, object]:
    fall = math.exp(-epoch / 4)
    return {
        "epoch": epoch,
        "train_loss": 0.2 + 2.0 * fall,
        "train_accuracy": 0.98 - 0.8 * fall,
        "validation_loss": 0.25 + 2.0 * fall,
        "validation_accuracy": 0.96 - 0.8 * fall,
        "expected_energy": 0.58 + 0.2 * fall,
        "alpha_entropy": 0.8 + 0.2 * fall,
        "beta_entropy": 0.6 + 0.4 * fall,
        "skips": 1,
        "seconds": 7.5,
    }


ROLE_ERRORS = {"approximate": 0.012, "exact": 0.008, "fp32": 0.006}


def train_row(role: str, epoch: int) -> dict[str, object]:
    fall = math.exp(-epoch / 6)
    accuracy = 1 - ROLE_ERRORS[role] - 0.7 * fall
    loss = 3 * ROLE_ERRORS[role] + 1.9 * fall
    return {"network": role, "epoch": epoch, "loss": loss, "accuracy": accuracy, "seconds": 0.5}


def _multiplier(name: str) -> dict[str, object]:
    energy, delay, area, mae, wce, rank = FIGURES[name]
    signed = name.startswith("mul8s")
    return {
        "name": name,
        "family": name.split("_", 1)[1].split("_k")[0].split("_h")[0],
        "a_signed": signed,
        "b_signed": signed,
        "sha256": digest(name),
        "rank": rank,
        "metrics": {
            "mae": mae,
            "wce": wce,
            "mre": mae / 4000,
            "ep": 0.0 if mae == 0 else 0.93,
            "mse": 1.4 * mae**2,
            "bias": -mae,
        },
        "cost": {
            "energy_fj": energy,
            "switching_fj": energy * 0.5,
            "internal_fj": energy * 0.45,
            "leakage_fj": energy * 0.05,
            "delay_ps": delay,
            "area_um2": area,
            "leakage_nw": area * 20,
            **{key: BASIS[key] for key in ("library", "clock_mhz", "activity")},
        },
    }


def _choice(name: str | None) -> dict[str, str] | None:
    return None if name is None else {"name": name, "sha256": digest(name)}


def _cell(genes: list[list[tuple[str, int, str | None]]]) -> dict[str, object]:
    return {
        "preprocess": [_choice("mul8s_truncated_k6"), _choice("mul8s_truncated_k4")],
        "genes": [
            [{"operation": o, "source": s, "multiplier": _choice(m)} for o, s, m in node]
            for node in genes
        ],
    }


def _layer_names() -> list[str]:
    parts = ("preprocess_0", "preprocess_1", "edge_0.depthwise", "edge_0.pointwise", "edge_2")
    return ["stem", *(f"cells.{cell}.{part}" for cell in range(3) for part in parts), "classifier"]


def _layer(number: int, layer: str) -> dict[str, object]:
    name = list(FIGURES)[number % 6]
    macs = 4000 * (1 + number * 7 % 9)
    return {
        "layer": layer,
        "operation": "sep_conv_3x3" if "edge" in layer else "convolution",
        "multiplier": name,
        "lut_sha256": digest(name),
        "macs": macs,
        "energy_nj": macs * FIGURES[name][0] / 1e6,
        "exact_energy_nj": macs * FIGURES["mul8s_array"][0] / 1e6,
    }


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
