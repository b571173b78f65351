"""Quantisers: per output channel for weights, per tensor for activations, symmetric or affine.

Rounding is that of ONNX ``QuantizeLinear``: round half to even of x / scale, add the zero point,
then clamp. Gradients are straight-through inside the range and zero outside it (Jacob et al., CVPR
2018), the range reaching half a level beyond its ends, as far as rounding does. So the gradient of
``scale · (level - zero_point)`` with respect to the scale is that of learned step sizes (Esser et
al., "Learned Step Size Quantization", ICLR 2020, Eq. 3), there for ranges that end with their ends.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hw.errors import InputError, unknown_name

from .observers import OBSERVERS, SMALLEST_SCALE, Levels, divided

__all__ = [
    "ActivationQuantiser",
    "Quantisation",
    "learned_scale",
    "levels_of",
    "quantise",
    "step_size",
    "weight_scales",
]


@dataclass(frozen=True)
class Quantisation:
    """How a layer quantises its operands.

    `observer`: what activations' ranges follow, a name in ``lut.observers.OBSERVERS``. `symmetric`:
    activations' zero point is 0 and a signed range is -high … high; otherwise affine, over all
    integers of the operand. `learned`: scales of activations (one) and weights (one per output
    channel) are parameters (Esser et al., ICLR 2020); there is no observer then.
    """

    observer: str = "moving_average"
    symmetric: bool = True
    learned: bool = False

    def __post_init__(self) -> None:
        if self.observer not in OBSERVERS:
            raise unknown_name("observer", self.observer, OBSERVERS)
        if self.learned and not self.symmetric:
            raise InputError("a quantiser with a learned scale must be symmetric, not affine")

    def quantiser(self, symmetric: tuple[int, int], full: tuple[int, int]) -> "ActivationQuantiser":
        """One over the `symmetric` range or over the `full` one, whichever suits."""
        return ActivationQuantiser(
            *(symmetric if self.symmetric else full),
            observer=self.observer,
            symmetric=self.symmetric,
            learned=self.learned,
        )


class _Quantise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, low: int, high: int, zero_point: int | Tensor
    ) -> Tensor:
        rounded = _rounded(x, scale, zero_point)
        levels = rounded.clamp(low, high)
        if any(ctx.needs_input_grad):
            inside = levels == rounded
            ctx.save_for_backward(inside, scale, x if ctx.needs_input_grad[1] else None)
        return levels

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inside, scale, x = ctx.saved_tensors
        passed = gradients[0] * inside
        grad_scale = None if x is None else -(passed * x).sum_to_size(scale.shape) / scale.square()
        return passed / scale, grad_scale, None, None, None


def quantise(x: Tensor, scale: Tensor, low: int, high: int, zero_point: int | Tensor = 0) -> Tensor:
    """Integer levels ``clamp(round(x / scale) + zero_point, low, high)`` as float32.

    Where the level needs no clamping, d level / dx = 1 / scale and d level / d scale = -x / scale²;
    elsewhere both are 0. `scale` broadcasts to x; x of any float type is computed with in float32.
    """
    result: Tensor = _Quantise.apply(x.float(), scale.float(), low, high, zero_point)
    return result


def levels_of(
    x: Tensor, scale: Tensor, low: int, high: int, zero_point: int | Tensor = 0
) -> Tensor:
    """:func:`quantise` without gradients."""
    return _rounded(x.float(), scale.float(), zero_point).clamp_(low, high)


def _rounded(x: Tensor, scale: Tensor, zero_point: int | Tensor) -> Tensor:
    levels = (x / scale).round_()
    return levels.add_(zero_point) if isinstance(zero_point, Tensor) or zero_point else levels


def weight_scales(weight: Tensor, high: int) -> Tensor:
    """One scale per output channel, so that its largest magnitude becomes `high`: shape (O, 1, 1,
    1).
    """
    largest = weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
    return divided(largest, high).clamp_min(SMALLEST_SCALE)


def step_size(mean_magnitude: Tensor, high: int) -> Tensor:
    """2·mean|x| / sqrt(high), positive: where a learned scale starts (Esser et al., sec. 2.1)."""
    return (2.0 * mean_magnitude.float() / high**0.5).clamp_min(SMALLEST_SCALE)


def learned_scale(scale: nn.Parameter, values: int, high: int) -> Tensor:
    """`scale`, positive, its gradient times 1 / sqrt(values · high) (Esser et al., sec. 2.2)."""
    scaled: Tensor = _ScaledGradient.apply(scale, (values * high) ** -0.5)
    return scaled.clamp_min(SMALLEST_SCALE)


class ActivationQuantiser(nn.Module):
    """Per-tensor quantiser, ``levels = clamp(round(x / scale) + zero_point, low, high)``.

    While training the range follows what `observer`, a name in ``lut.observers.OBSERVERS``, sees.
    Affine ranges (not `symmetric`) always hold zero, so real zero is a level: the zero point.
    `learned`: the scale is a parameter instead, initialised from the first training batch as
    2·mean|x| / sqrt(high), its gradient times 1 / sqrt(values · high) (Esser et al., ICLR 2020,
    section 2.2). State: ``scale`` float32, ``zero_point`` int32, 0-dimensional; 1 / high and 0 at
    first.
    """

    scale: Tensor
    zero_point: Tensor
    initialised: Tensor

    def __init__(
        self,
        low: int,
        high: int,
        *,
        observer: str = "moving_average",
        symmetric: bool = True,
        learned: bool = False,
    ) -> None:
        super().__init__()
        if observer not in OBSERVERS:
            raise unknown_name("observer", observer, OBSERVERS)
        if learned and not symmetric:
            raise InputError("a quantiser with a learned scale must be symmetric, not affine")
        self.levels, self.learned, self.observer_name = (
            Levels(low, high, symmetric),
            learned,
            observer,
        )
        self.register_buffer("zero_point", torch.tensor(0, dtype=torch.int32))
        if learned:
            self.scale = nn.Parameter(torch.tensor(1.0 / high))
            self.register_buffer("initialised", torch.tensor(False))
            self.register_load_state_dict_post_hook(_forget)
        else:
            self.register_buffer("scale", torch.tensor(1.0 / high))
        self.observer = None if learned else OBSERVERS[observer](self.levels)
        self._known_initialised = False

    @property
    def low(self) -> int:
        """The lowest level."""
        return self.levels.low

    @property
    def high(self) -> int:
        """The highest level."""
        return self.levels.high

    @property
    def is_symmetric(self) -> bool:
        """Whether the zero point is 0 whatever is observed."""
        return self.levels.symmetric

    def forward(self, x: Tensor) -> Tensor:
        scale, zero_point = self.grid(x)
        return quantise(x, scale, self.low, self.high, 0 if self.is_symmetric else zero_point)

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """scale and zero point for `x`, which is observed first while training.

        A later call leaves the tensors that an earlier training call returned as they are.
        """
        if self.learned:
            return self._learned_scale(x), self.zero_point
        if not self.training:
            return self.scale, self.zero_point
        return self._observed_grid(x)

    @torch.no_grad()
    def set_range(self, low: float, high: float) -> None:
        """Force the range of real values that the levels cover."""
        lowest, highest = self.levels.covered(low, high)
        scale, zero_point = self.levels.grid(torch.tensor(lowest), torch.tensor(highest))
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
        if self.observer is None:
            self.initialised.fill_(True)
        else:
            self.observer.set_range(lowest, highest)

    @torch.no_grad()
    def _observed_grid(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert self.observer is not None
        self.observer.observe(x)
        scale, zero_point = self.levels.grid(*self.observer.range)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
        return scale, zero_point

    def _learned_scale(self, x: Tensor) -> Tensor:
        if self.training:
            self._prepare(x.detach())
        assert isinstance(self.scale, nn.Parameter)
        return learned_scale(self.scale, x.numel(), self.high)

    @torch.no_grad()
    def _prepare(self, x: Tensor) -> None:
        """Initialise the scale once, asking the device for the flag only until it is set; then keep
        it positive.
        """
        if not self._known_initialised and not bool(self.initialised):
            self.scale.copy_(step_size(x.float().abs().mean(), self.high))
            self.initialised.fill_(True)
        self._known_initialised = True
        self.scale.clamp_min_(SMALLEST_SCALE)

    def extra_repr(self) -> str:
        kind = "symmetric" if self.is_symmetric else "affine"
        how = "learned" if self.learned else f"observer={self.observer_name}"
        return f"{self.low} … {self.high}, {kind}, {how}"


class _ScaledGradient(torch.autograd.Function):
    """A copy of x whose gradient reaches x times `factor`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0] * ctx.factor, None


def _forget(quantiser: ActivationQuantiser, _: Any) -> None:
    """After loading a state its own flag counts."""
    quantiser._known_initialised = False
