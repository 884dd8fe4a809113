"""Which stride and padding did a transposed convolution have? Kernels do not say; the image size and custom do."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

# kernel -> (stride, padding, output padding), the customary one first
COMMON_STRIDES: dict[int, tuple[tuple[int, int, int], ...]] = {
    1: ((1, 0, 0), (1, 2, 0)),
    2: ((2, 0, 0),),
    3: ((1, 1, 0), (2, 1, 1), (2, 1, 0), (2, 0, 0), (1, 0, 0), (3, 0, 0)),
    4: ((2, 1, 0), (2, 0, 0), (1, 0, 0), (2, 2, 0)),
    5: ((2, 2, 1), (1, 2, 0), (2, 2, 0), (3, 1, 0)),
    6: ((2, 2, 0),),
    7: ((1, 3, 0), (1, 0, 0), (2, 3, 1)),
}
COMMON_IMAGE_SIZES = (16, 24, 28, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
MAX_IMAGE_SIZE = 2048  # pixels
_WAYS, _PATHS = 24, 100  # to one size, that are told apart; beginnings of ways that are followed
_UNUSUAL = 1.5  # a final side that nobody uses costs more than one unusual layer

StrideSpec = tuple[int, int, int]


def infer_strides(
    start_size: int, kernel_sizes: Sequence[int], image_size: int | None, fixed: Sequence[StrideSpec] = ()
) -> tuple[list[StrideSpec], list[int]] | None:
    """The most customary geometry of each layer from side `start`, and every side that can be reached; the first layers may be `fixed`.

    A kernel as large as a fixed one that doubles the side most likely does it the same way. With `image_size`, the most customary
    plan that ends there, or none. Cost: one state per reachable side and layer.
    """
    reached: dict[int, tuple[float, list[StrideSpec]]] = {start_size: (0.0, [])}
    for index, kernel in enumerate(kernel_sizes):
        following: dict[int, tuple[float, list[StrideSpec]]] = {}
        for side, (cost, path) in reached.items():
            for rank, geometry in enumerate(
                (fixed[index],) if index < len(fixed) else _likely(kernel, kernel_sizes, fixed)
            ):
                after = transposed_conv_size(side, kernel, geometry)
                worth = cost + 0.5 * (rank > 0) + 0.5 * rank
                if 1 <= after <= MAX_IMAGE_SIZE and (after not in following or worth < following[after][0]):
                    following[after] = worth, [*path, geometry]
        reached = following
    sides = sorted(reached)
    if not reached or (image_size is not None and image_size not in reached):
        return ([], sides) if sides else None
    best = image_size or min(reached, key=lambda side: reached[side][0] + _UNUSUAL * (side not in COMMON_IMAGE_SIZES))
    return reached[best][1], sides


def _likely(kernel: int, kernels: Sequence[int], fixed: Sequence[StrideSpec]) -> list[StrideSpec]:
    """The geometries of a kernel; where the last fixed one of its size doubles the side, that one's is the first."""
    alike = [geometry for size, geometry in zip(kernels, fixed, strict=False) if size == kernel][-1:]
    return list(dict.fromkeys([*(geometry for geometry in alike if geometry[0] > 1), *COMMON_STRIDES.get(kernel, ())]))


def enumerate_strides(
    start_size: int, kernel_sizes: Sequence[int], image_size: int, candidates: Sequence[Sequence[StrideSpec]]
) -> list[tuple[StrideSpec, ...]]:
    """Geometries of the first layers, one of each's `options`, from which the others can lead to `image_size`; the most customary first."""
    found: list[tuple[StrideSpec, ...]] = [()]
    for given in candidates:
        longer = [(*path, geometry) for path in found for geometry in given]
        possible = [
            path for path in longer if (infer_strides(start_size, kernel_sizes, image_size, path) or ([], []))[0]
        ]
        found = sorted(
            possible,
            key=lambda path: sum(given.index(geometry) for given, geometry in zip(candidates, path, strict=False)),
        )[:_PATHS]
    return found[:_WAYS]


def transposed_conv_size(input_size: int, kernel_size: int, stride_spec: StrideSpec) -> int:
    """The side of a transposed convolution's output."""
    stride, padding, extra = stride_spec
    return (input_size - 1) * stride - 2 * padding + kernel_size + extra


def describe_strides(kernel_sizes: Iterable[int], stride_specs: Iterable[StrideSpec]) -> str:
    """In words: "2 times 4x4 with stride 2, padding 1; then 3x3 with stride 1, padding 1"."""
    parts = []
    for (kernel, (stride, padding, extra)), alike in itertools.groupby(zip(kernel_sizes, stride_specs, strict=False)):
        times = len(list(alike))
        outer = f", output padding {extra}" if extra else ""
        parts.append(
            (f"{times} times " if times > 1 else "")
            + f"{kernel}x{kernel} with stride {stride}, padding {padding}{outer}"
        )
    return "; then ".join(parts)


def format_stride(stride_spec: StrideSpec) -> str:
    """As --strides takes it: "2/1", stride and padding, or "2/2/1" with an output padding."""
    return "/".join(map(str, stride_spec if stride_spec[2] else stride_spec[:2]))


def parse_stride(text: str) -> StrideSpec:
    """What `written` gave. ValueError for anything else, and for an output padding that torch refuses."""
    parts = [int(part) for part in text.split("/")]
    stride, padding, extra = (*parts, 0)[:3]
    if len(parts) not in (2, 3) or stride < 1 or padding < 0 or not 0 <= extra < stride:
        raise ValueError(text)
    return stride, padding, extra
