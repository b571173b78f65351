"""Where a run computes and in which type: the settings ``device`` and ``precision``.

This module loads torch only when something is asked of it.
"""

import contextlib
from typing import TYPE_CHECKING

from hw.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "available_device",
    "computing",
    "device_generator_state",
    "placed",
    "set_device_generator_state",
    "torch_device",
]


def available_device() -> str:
    """What ``device = "auto"`` stands for on this machine: "cuda" where torch has one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_device(name: str) -> "torch.device":
    """The device of a resolved or unresolved setting; InputError where there is no CUDA."""
    import torch

    resolved = available_device() if name == "auto" else name
    if resolved == "cuda" and not torch.cuda.is_available():
        raise InputError("device must be 'cpu' on a machine without a usable GPU, not 'cuda'")
    return torch.device(resolved)


def placed(network: "nn.Module", device: "torch.device") -> "nn.Module":
    """The module moved, in place, to `device`; on CUDA its weights become channels_last."""
    import torch

    if device.type == "cuda":
        return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(device)


def computing(device: "torch.device", precision: str) -> contextlib.AbstractContextManager[object]:
    """Autocast to bfloat16 under "bf16"; nothing under "fp32"."""
    import torch

    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def device_generator_state(device: "torch.device") -> "torch.Tensor | None":
    """Of torch's own generator on a GPU, for a checkpoint; None on a CPU, which has the global
    one.
    """
    import torch

    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_device_generator_state(device: "torch.device", state: "torch.Tensor | None") -> None:
    """What :func:`device_generator_state` was; nothing on a CPU."""
    import torch

    if device.type == "cuda" and state is not None:
        torch.cuda.set_rng_state(state.cpu(), device)
