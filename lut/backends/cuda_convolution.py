"""Convolutions on a CUDA device, by planes in its matrix units or by look-ups: launches of kernels.

Each function fills `result` (N, H', W', O), contiguous: with integer sums, or rescaled as `finish`
says. Activations are laid out for a few images at a time, at most `WORKSPACE_BYTES`, so nothing of
the size of channels · planes of a whole batch is ever in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd

import torch
from torch import Tensor

from ..geometry import ConvGeometry
from .cuda_operands import (
    Columns,
    Images,
    Kernels,
    Layout,
    Order,
    PackedPlanes,
    PlaneOrder,
    on_device,
    padded_to,
    power_of_two,
)

__all__ = [
    "Finish",
    "PlaneTile",
    "by_columns",
    "by_depthwise_planes",
    "by_planes",
    "by_rows",
    "depthwise_layout",
    "plane_tile",
    "row_order",
    "row_tile",
]

WORKSPACE_BYTES = 1 << 27
ROW_BYTES = 1 << 27
WORD = 8


@dataclass(frozen=True, eq=False)
class Finish:
    """y = x_scale · w_scales[o] · (sum - zero · w_sums[o]); without `w_sums` no zero point."""

    x_scale: Tensor
    w_scales: Tensor
    zero: Tensor
    w_sums: Tensor | None = None

    @classmethod
    def of(cls, images: Images, kernels: Kernels, affine: bool) -> "Finish":
        assert images.scale is not None and kernels.scales is not None
        sums = kernels.sums if affine else None
        return cls(images.scale, kernels.scales, images.zero, sums)


@dataclass(frozen=True)
class PlaneTile:
    """What one program computes: positions by outputs, `depth` bytes of a place at a time."""

    positions: int
    outputs: int
    depth: int
    warps: int
    stages: int


def plane_tile(outputs: int, group_bytes: int) -> PlaneTile:
    """For so many outputs and bytes of a place in a group."""
    padded = {depth: padded_to(depth, group_bytes) for depth in (128, 64, 32)}
    depth = next(d for d in (128, 64, 32) if padded[d] * 8 <= padded[32] * 9)
    width = max(16, min(128, power_of_two(outputs)))
    return PlaneTile(128, width, depth, 4 if width <= 64 else 8, 4 if depth <= 64 else 3)


def by_planes(
    images: Images,
    kernels: Kernels,
    planes: PackedPlanes,
    layout: Layout,
    order: PlaneOrder,
    tile: PlaneTile,
    rows: int,
    result: Tensor,
    finish: Finish | None = None,
) -> None:
    """Factors as planes: an implicit matrix product over taps and planes."""
    from .cuda_kernels import convolve_planes

    groups, padded, _ = order.shape
    assert kernels.planes is not None
    align = gcd(16, order.group_outputs)
    depth_blocks = padded_to(tile.depth, layout.group_bytes) // tile.depth
    for part, target in _parts(images, layout, result):
        x = layout.expanded(part, planes, rows)
        places = layout.places(len(target))
        grid = (-(-places[0] // tile.positions) * (padded // tile.outputs), groups)
        with on_device(x):
            convolve_planes[grid](
                x, kernels.planes, _or(kernels.rest, x), target, *_scales(finish, x), *places,
                layout.group_bytes, *layout.tap_steps, layout.taps, depth_blocks,
                padded, order.group_outputs // align, groups,
                kernels.rest is not None, *_flags(finish), align,
                tile.positions, tile.outputs, tile.depth,
                num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip


def depthwise_layout(
    x: torch.Size, w: torch.Size, geometry: ConvGeometry, *, count: int = 1, order: Order = "bytes"
) -> Layout:
    """One input channel an output: the channels of all groups side by side."""
    every = torch.Size((w[0], x[1], *w[2:]))
    alone = replace(geometry, groups=1)
    return Layout.of(x, every, alone, count=count, multiple=16, order=order)


def by_depthwise_planes(
    images: Images,
    kernels: Kernels,
    planes: PackedPlanes,
    layout: Layout,
    rows: int,
    result: Tensor,
    finish: Finish | None = None,
) -> None:
    """Factors as planes, one by one (`planes.plain`, bytes) or four at a time (words)."""
    from .cuda_kernels import depthwise_planes

    assert kernels.planes is not None and (planes.plain == (layout.order == "bytes"))
    w = kernels.planes if planes.plain else kernels.planes.view(torch.int32)
    outputs = result.shape[3]
    align = gcd(16, outputs)
    tile = max(16, min(64, power_of_two(outputs)))
    positions = (2048 if planes.plain else 1024) // tile
    for part, target in _parts(images, layout, result):
        x = layout.expanded(part, planes, rows)
        places = layout.places(len(target))
        grid = (-(-places[0] // positions), -(-outputs // tile))
        with on_device(x):
            depthwise_planes[grid](
                x, w, target, *_scales(finish, x), *places, *layout.tap_steps,
                layout.taps, layout.group_channels, outputs // align, outputs // layout.channels,
                *_flags(finish), align, 0 if planes.plain else planes.word_count,
                positions, tile, num_warps=4,
            )  # fmt: skip


def by_columns(
    images: Images,
    kernels: Kernels,
    table: Tensor,
    layout: Layout,
    result: Tensor,
    finish: Finish | None = None,
) -> None:
    """One input channel an output, any table: look-ups in columns of `table` (columns, rows)."""
    from .cuda_kernels import depthwise_columns

    assert kernels.patterns is not None and layout.order == "channels"
    outputs, rows = result.shape[3], table.shape[1]
    bare = PackedPlanes.bare(rows, table.device)
    align = gcd(16, outputs)
    tile, positions = 8, 256
    for part, target in _parts(images, layout, result):
        x = layout.expanded(part, bare, rows).view(torch.uint8)
        places = layout.places(len(target))
        grid = (-(-outputs // tile), -(-places[0] // positions))
        with on_device(x):
            depthwise_columns[grid](
                x, table, kernels.patterns, target, *_scales(finish, x), *places,
                *layout.tap_steps, layout.taps, layout.padded[0] * layout.padded[1],
                outputs // align, outputs // layout.channels,
                *_flags(finish), align, table.is_floating_point(), rows, positions, tile,
                num_warps=4,
            )  # fmt: skip


@dataclass(frozen=True)
class RowTile:
    """What one program computes."""

    positions: int
    outputs: int
    warps: int


def row_tile(outputs: int, positions: int) -> RowTile:
    """Wide, but so that there are programs for all multiprocessors."""
    width = min(64, max(8, power_of_two(outputs)))
    warps = 16
    while warps > 1 and positions * outputs < 264 * 1024 * 2 * warps:
        warps //= 2
    return RowTile(warps * 2048 // width, width, warps)


def by_rows(
    images: Images,
    kernels: Kernels,
    columns: Columns,
    layout: Layout,
    result: Tensor,
    finish: Finish | None = None,
    tile: RowTile | None = None,
) -> None:
    """Any table: each operand selects a row of products with all outputs, and the rows are added.

    Rows are laid out for so many operands of a sum at a time as fit `ROW_BYTES`; until the last
    the sums so far are kept as integers.
    """
    assert kernels.patterns is not None
    groups = layout.geometry.groups
    outputs = result.shape[3] // groups
    tile = tile or row_tile(outputs, result[..., 0].numel())
    table = columns.table
    blocks = -(-outputs // tile.outputs)
    words = layout.taps * layout.group_channels // WORD
    bare = PackedPlanes.bare(table.shape[1], table.device)
    word_bytes = WORD * groups * blocks * tile.outputs * table.shape[1] * table.element_size()
    few = max(1, ROW_BYTES // word_bytes)
    turns = [(begin, min(few, words - begin)) for begin in range(0, words, few)]
    whole = result if len(turns) == 1 else torch.empty_like(result, dtype=torch.int32)
    for begin, length in turns:
        rows = _rows(kernels.patterns, columns, layout, begin, length, outputs, blocks, tile)
        last = begin + length == words
        for part, target, sums in _parts(images, layout, result, whole):
            x = layout.expanded(part, bare, table.shape[1])
            _add_rows(
                x, rows, sums, target if last else sums, layout, begin, length, tile, blocks,
                columns, finish if last else None, begin > 0,
            )  # fmt: skip


def row_order(x: torch.Size, w: torch.Size, geometry: ConvGeometry) -> Layout:
    return Layout.of(x, w, geometry, multiple=WORD)


def _rows(
    patterns: Tensor,
    columns: Columns,
    layout: Layout,
    begin: int,
    length: int,
    outputs: int,
    blocks: int,
    tile: RowTile,
) -> Tensor:
    from .cuda_kernels import lay_out_rows

    table = columns.table
    groups, size = layout.geometry.groups, table.shape[1]
    shape = (groups, blocks, length * WORD, size, tile.outputs)
    rows = torch.empty(shape, dtype=table.dtype, device=table.device)
    at_once = min(size, 64)
    grid = (groups * length * WORD, blocks, -(-size // at_once))
    with on_device(table):
        lay_out_rows[grid](
            patterns, table, rows, begin * WORD, length * WORD, layout.group_channels,
            layout.channels, layout.taps, outputs, blocks, len(table) - 1,
            size, tile.outputs, at_once,
        )  # fmt: skip
    return rows


def _add_rows(
    x: Tensor,
    rows: Tensor,
    before: Tensor,
    result: Tensor,
    layout: Layout,
    begin: int,
    length: int,
    tile: RowTile,
    blocks: int,
    columns: Columns,
    finish: Finish | None,
    add: bool,
) -> None:
    from .cuda_kernels import row_convolution

    groups, outputs = layout.geometry.groups, result.shape[3] // layout.geometry.groups
    align = gcd(16, outputs)
    words = x.view(torch.int64)
    products = rows.view(torch.int32) if columns.pairs else rows
    positions, width, size, *steps = layout.places(len(result))
    kernel_width, *tap_steps = layout.tap_steps
    grid = (-(-positions // tile.positions) * blocks, groups)
    with on_device(x):
        row_convolution[grid](
            words, products, before, result, *_scales(finish, x), positions, width, size,
            *(step // WORD for step in steps), layout.group_channels // WORD,
            kernel_width, *(step // WORD for step in tap_steps), begin, length,
            layout.group_channels // WORD, blocks, outputs // align, groups, columns.bias,
            add, *_flags(finish), align, columns.pairs, rows.shape[3],
            tile.positions, tile.outputs,
            num_warps=tile.warps,
        )  # fmt: skip


def _parts(images: Images, layout: Layout, *results: Tensor) -> Iterator[tuple]:  # type: ignore[type-arg]
    """A few images at a time, with their places in the results."""
    count = len(images.x)
    few = max(1, min(count, WORKSPACE_BYTES // layout.image_bytes))
    for start in range(0, count, few):
        stop = min(count, start + few)
        yield images.part(start, stop), *(result[start:stop] for result in results)


def _scales(finish: Finish | None, unused: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if finish is None:
        return (unused,) * 4
    return finish.x_scale, finish.w_scales, finish.zero, _or(finish.w_sums, unused)


def _flags(finish: Finish | None) -> tuple[bool, bool]:
    return finish is not None, finish is not None and finish.w_sums is not None


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    return other if tensor is None else tensor
