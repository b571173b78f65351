"""Convolutions on a CUDA device, by planes in its matrix units or by look-ups: launches of kernels.

Each function fills `result` (N, H', W', O), contiguous: with integer sums, or rescaled as `finish`
says. Activations are laid out for a few images at a time, at most `WORKSPACE_BYTES`, so nothing of
the size of channels · planes of a whole batch is ever in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

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
    "by_mixed_pointwise",
    "by_planes",
    "by_pointwise",
    "by_rows",
    "depthwise_layout",
    "mixed_tile",
    "plane_tile",
    "pointwise_tile",
    "row_order",
    "row_tile",
]

WORKSPACE_BYTES = 1 << 27
"""Of activations laid out at a time."""
ROW_BYTES = 1 << 28
"""Of rows of products laid out at a time: with half as many, wide layers take longer."""
MULTIPROCESSORS = 128
"""As many as a large GPU has, about."""
ROW_PROGRAMS = 528
"""Programs that share the work of one convolution: four for each multiprocessor."""
FEW_PROGRAMS = 200
STAGE_BYTES = 160 << 10
UNROLLED_PLANES = 8
QUADS_TILE = (2, 64)
"""Outputs, and quads of positions, of a program of depthwise layers."""
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
    """What one program computes: positions by outputs (rows of weights, where those of an output
    are two), `depth` bytes of a place at a time.
    """

    positions: int
    outputs: int
    depth: int
    warps: int
    stages: int


def plane_tile(outputs: int, group_bytes: int, positions: int) -> PlaneTile:
    """For so many outputs (or rows) and bytes of a place in a group: small where large ones would
    leave multiprocessors without work.
    """
    padded = {depth: padded_to(depth, group_bytes) for depth in (128, 64, 32)}
    depth = next(d for d in (128, 64, 32) if padded[d] * 8 <= padded[32] * 9)
    width = max(16, min(128, power_of_two(outputs)))
    if width == 128 and -(-positions // 128) * -(-outputs // width) < MULTIPROCESSORS:
        return PlaneTile(64, 64, depth, 4, 4)
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

    groups, padded_rows, _ = order.shape
    assert kernels.planes is not None
    align = gcd(16, order.group_outputs)
    depth_blocks = padded_to(tile.depth, layout.group_bytes) // tile.depth
    mixed = kernels.planes.is_floating_point()
    stages = _stages(tile, tile.depth * (tile.positions + tile.outputs * (4 if mixed else 1)))
    for part, target in _parts(images, layout, result):
        x = layout.expanded(part, planes, rows)
        places = layout.places(len(target))
        grid = (-(-places[0] // tile.positions) * (padded_rows // tile.outputs), groups)
        with on_device(x):
            convolve_planes[grid](
                x, kernels.planes, _or(kernels.rest, x), _or(kernels.unit, x), target,
                *_scales(finish, x), *places, layout.group_bytes, *layout.tap_steps, layout.taps,
                depth_blocks, padded_rows, order.group_outputs // align, groups,
                mixed, kernels.unit is not None, *_flags(finish), align,
                tile.positions, tile.outputs, tile.depth,
                num_warps=tile.warps, num_stages=stages,
            )  # fmt: skip


def pointwise_tile(outputs: int, channels: int, planes: PackedPlanes) -> PlaneTile:
    depth = 32 if channels <= 32 else 64
    width = max(16, min(128, power_of_two(outputs)))
    return PlaneTile(128, width, depth, 4 if planes.plain and width <= 64 else 8, 3)


def _stages(tile: PlaneTile, turn_bytes: int) -> int:
    """How many turns' operands fit shared memory, at most the tile's."""
    return max(1, min(tile.stages, STAGE_BYTES // turn_bytes))


def by_pointwise(
    images: Images,
    kernels: Kernels,
    planes: PackedPlanes,
    order: PlaneOrder,
    tile: PlaneTile,
    geometry: ConvGeometry,
    rows: int,
    result: Tensor,
    finish: Finish | None = None,
) -> None:
    """Factors as planes, 1×1 without padding or groups: nothing is laid out in memory."""
    from .cuda_kernels import convolve_pointwise

    assert kernels.planes is not None
    x, padded = images.x, order.padded_outputs
    batch, height, width, outputs = result.shape
    positions, (align, *steps) = batch * height * width, _pixel_steps(x, geometry)
    grid = (-(-positions // tile.positions) * (padded // tile.outputs),)
    out_align = gcd(16, outputs)
    unrolled = planes.count <= UNROLLED_PLANES
    at_once = planes.count if unrolled else 4
    stages = _stages(tile, at_once * tile.depth * tile.outputs)
    with on_device(x):
        convolve_pointwise[grid](
            x, planes.words, kernels.planes, result,
            *_pointwise_scales(images, finish, x), images.low, images.high,
            positions, width, height * width, *steps, x.stride(1),
            x.shape[1] // align, order.channels, padded, outputs // out_align,
            images.scale is not None, planes.plain, *_flags(finish),
            align, out_align, rows, planes.count, unrolled,
            tile.positions, tile.outputs, tile.depth,
            num_warps=tile.warps, num_stages=stages,
        )  # fmt: skip


def mixed_tile(outputs: int, channels: int) -> PlaneTile:
    depth, width = 16 if channels <= 16 else 32, max(16, min(128, power_of_two(outputs)))
    return PlaneTile(128 if width <= 32 else 64, width, depth, 4, 1)


def by_mixed_pointwise(
    images: Images,
    kernels: Kernels,
    u: Tensor,
    order: PlaneOrder,
    tile: PlaneTile,
    geometry: ConvGeometry,
    result: Tensor,
    finish: Finish,
) -> None:
    """Mixed factors, 1×1 without padding or groups; u (words, rows, 4) real, as the kernels."""
    from .cuda_kernels import mixed_pointwise

    x, padded, (words, rows, _) = images.x, order.padded_outputs, u.shape
    assert kernels.planes is not None
    batch, height, width, outputs = result.shape
    positions, (align, *steps) = batch * height * width, _pixel_steps(x, geometry)
    grid = (-(-positions // tile.positions) * (padded // tile.outputs),)
    out_align = gcd(16, outputs)
    with on_device(x):
        mixed_pointwise[grid](
            x, u, kernels.planes, _or(kernels.rest, x), result, *_scales(finish, x), images.low,
            images.high, positions, width, height * width, *steps, x.stride(1),
            x.shape[1] // align, order.channels, padded, outputs // out_align,
            _flags(finish)[1], kernels.rest is not None, align, out_align, rows, words,
            tile.positions, tile.outputs, tile.depth,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip


def _pixel_steps(x: Tensor, geometry: ConvGeometry) -> tuple[int, int, int, int]:
    """What channels and steps are multiples of, 16 at most; the steps of an image, a row and a
    column of a 1×1 convolution's operands, in such units.
    """
    align = gcd(16, x.shape[1], x.stride(0), x.stride(2), x.stride(3))
    down, right = geometry.stride
    return (
        align, x.stride(0) // align, down * x.stride(2) // align, right * x.stride(3) // align,
    )  # fmt: skip


def _pointwise_scales(images: Images, finish: Finish | None, unused: Tensor) -> tuple[Tensor, ...]:
    if finish is None:
        return unused, unused, images.zero, unused
    return _scales(finish, unused)


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
    """Factors as planes, one by one (`planes.plain`, bytes) or four at a time (words), the latter
    also in fixed point.
    """
    from .cuda_kernels import depthwise_planes

    assert kernels.planes is not None and (planes.plain == (layout.order == "bytes"))
    w = kernels.planes if planes.plain else kernels.planes.view(torch.int32)
    outputs = result.shape[3]
    align = gcd(16, outputs)
    kernel_width, *tap_steps = layout.tap_steps
    tile, positions = 16, 512 if planes.plain else 256
    for part, target in _parts(images, layout, result):
        x = layout.expanded(part, planes, rows)
        count, width, size, *steps = layout.places(len(target))
        grid = (-(-count // positions), -(-outputs // tile))
        with on_device(x):
            depthwise_planes[grid](
                x, w, _or(kernels.unit, x), target, *_scales(finish, x), count, width, size,
                *(step // 16 for step in steps),
                kernel_width, *(step // 16 for step in tap_steps),
                layout.taps, layout.group_channels, w.shape[2],
                outputs // align, outputs // layout.channels,
                kernels.unit is not None, *_flags(finish), align,
                0 if planes.plain else planes.word_count,
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
    assert kernels.patterns is not None and layout.order == "channels"
    rows = table.shape[1]
    bare = PackedPlanes.bare(rows, table.device)
    way = _by_quads if _has_quads(layout) else _by_positions
    for part, target in _parts(images, layout, result):
        x = layout.expanded(part, bare, rows)
        way(x, kernels.patterns, table, layout, target, finish)


def _has_quads(layout: Layout) -> bool:
    """Whether four neighbouring positions of a tap's row read four words at most."""
    (height, width), geometry = layout.kernel, layout.geometry
    (down, stride), (lower, dilation) = geometry.stride, geometry.dilation
    square = height == width and down == stride and lower == dilation
    return square and 3 * stride + (width - 1) * dilation < 16


def _by_quads(
    x: Tensor,
    patterns: Tensor,
    table: Tensor,
    layout: Layout,
    result: Tensor,
    finish: Finish | None,
) -> None:
    from .cuda_kernels import depthwise_quads

    images, rows, columns, outputs = result.shape
    align = gcd(16, outputs)
    tile, quads_tile = QUADS_TILE
    row_quads = -(-columns // 4)
    quads, row_words = images * rows * row_quads, layout.padded[1] // 4
    channel_words = layout.channel_items(images) // 4
    grid = (-(-quads // quads_tile), -(-outputs // tile))
    with on_device(x):
        depthwise_quads[grid](
            x.view(torch.int32), table, patterns, result, *_scales(finish, x),
            images * rows * columns, columns, rows * columns, quads, row_quads,
            layout.padded[0] * row_words, row_words, channel_words,
            outputs // align, outputs // layout.channels,
            *_flags(finish), align, table.is_floating_point(), table.shape[1],
            layout.kernel[0], layout.geometry.stride[0], layout.geometry.dilation[0],
            quads_tile, tile, num_warps=2,
        )  # fmt: skip


def _by_positions(
    x: Tensor,
    patterns: Tensor,
    table: Tensor,
    layout: Layout,
    result: Tensor,
    finish: Finish | None,
) -> None:
    from .cuda_kernels import depthwise_columns

    outputs = result.shape[3]
    align = gcd(16, outputs)
    tile, positions = 4, 256
    places = layout.places(len(result))
    grid = (-(-places[0] // positions), -(-outputs // tile))
    with on_device(x):
        depthwise_columns[grid](
            x.view(torch.uint8), table, patterns, result, *_scales(finish, x), *places,
            *layout.tap_steps, layout.taps, layout.channel_items(len(result)),
            outputs // align, outputs // layout.channels,
            *_flags(finish), align, table.is_floating_point(), table.shape[1], positions, tile,
            num_warps=4,
        )  # fmt: skip


@dataclass(frozen=True)
class RowTile:
    """What one program computes; the operands of a sum are divided among `splits` programs."""

    positions: int
    outputs: int
    warps: int
    splits: int


# Relative time of a product by the width of a row, as measured: short rows use the cache badly.
ROW_COSTS = {64: 1.0, 32: 1.2, 16: 1.7, 8: 2.5}


def row_tile(outputs: int, positions: int, words: int) -> RowTile:
    """Operands of a sum are divided among programs where positions and outputs make too few."""
    width = min(ROW_COSTS, key=lambda width: padded_to(width, outputs) * ROW_COSTS[width])
    blocks, tile = -(-outputs // width), 8192 // width
    if -(-positions // tile) * blocks < FEW_PROGRAMS:
        tile //= 2
    programs = -(-positions // tile) * blocks
    splits = -(-ROW_PROGRAMS // programs)
    return RowTile(tile, width, 4, max(1, min(splits, words // 4)))


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

    Rows are laid out for so many operands of a sum at a time as fit `ROW_BYTES`. Where that is not
    all of them, or programs share a sum, sums are added up as integers first.
    """
    assert kernels.patterns is not None
    groups, table = layout.geometry.groups, columns.table
    outputs = result.shape[3] // groups
    words = layout.taps * layout.group_channels // WORD
    tile = tile or row_tile(outputs, result[..., 0].numel() * groups, words)
    blocks = -(-outputs // tile.outputs)
    bare = PackedPlanes.bare(table.shape[1], table.device)
    word_bytes = WORD * groups * blocks * tile.outputs * table.shape[1] * table.element_size()
    few = max(1, ROW_BYTES // word_bytes)
    add = few < words or tile.splits > 1
    sums = torch.zeros_like(result, dtype=torch.int32) if add else result
    at_once = len(images.x) * layout.image_bytes <= WORKSPACE_BYTES
    whole = layout.expanded(images, bare, table.shape[1]) if at_once else None
    for begin in range(0, words, few):
        length = min(few, words - begin)
        rows = _rows(kernels.patterns, columns, layout, begin, length, outputs, blocks, tile)
        for part, target in _parts(images, layout, sums):
            x = layout.expanded(part, bare, table.shape[1]) if whole is None else whole
            _add_rows(
                x, rows, target, layout, begin, length, tile, blocks, columns,
                None if add else finish, add,
            )  # fmt: skip
    if add:
        _finish(sums, result, finish)


def _finish(sums: Tensor, result: Tensor, finish: Finish | None) -> None:
    from .cuda_kernels import finish_sums

    if finish is None:
        result.copy_(sums)
        return
    positions, outputs = result[..., 0].numel(), result.shape[3]
    align, tile = gcd(16, outputs), min(64, power_of_two(outputs))
    with on_device(sums):
        finish_sums[(-(-positions // (1024 // tile)), -(-outputs // tile))](
            sums, result, *_scales(finish, sums), positions, outputs // align,
            finish.w_sums is not None, align, 1024 // tile, tile,
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
    share = -(-length // tile.splits)
    grid = (-(-positions // tile.positions) * blocks, groups, -(-length // share))
    with on_device(x):
        row_convolution[grid](
            words, products, result, *_scales(finish, x), positions, width, size,
            *(step // WORD for step in steps), layout.group_channels // WORD,
            kernel_width, *(step // WORD for step in tap_steps), begin, length, share,
            layout.group_channels // WORD, blocks, outputs // align, groups, columns.bias,
            add, *_flags(finish), align, columns.pairs, rows.shape[3],
            tile.positions, tile.outputs,
            num_warps=tile.warps,
        )  # fmt: skip


def _parts(images: Images, layout: Layout, *results: Tensor) -> Iterator[tuple[Any, ...]]:
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
