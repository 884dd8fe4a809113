"""Which stride and padding did a transposed convolution have? Kernels do not say; the image size and custom do."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

# kernel -> (stride, padding, output padding), the customary one first
CUSTOM: dict[int, tuple[tuple[int, int, int], ...]] = {
    1: ((1, 0, 0), (1, 2, 0)),
    2: ((2, 0, 0),),
    3: ((1, 1, 0), (2, 1, 1), (2, 1, 0), (2, 0, 0), (1, 0, 0), (3, 0, 0)),
    4: ((2, 1, 0), (2, 0, 0), (1, 0, 0), (2, 2, 0)),
    5: ((2, 2, 1), (1, 2, 0), (2, 2, 0), (3, 1, 0)),
    6: ((2, 2, 0),),
    7: ((1, 3, 0), (1, 0, 0), (2, 3, 1)),
}
USUAL_SIDES = (16, 24, 28, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
LARGEST = 2048  # pixels
_WAYS, _PATHS = 24, 100  # to one size, that are told apart; beginnings of ways that are followed
_UNUSUAL = 1.5  # a final side that nobody uses costs more than one unusual layer

Geometry = tuple[int, int, int]


def plan(start: int, kernels: Sequence[int], image_size: int | None, fixed: Sequence[Geometry] = ()) -> tuple[list[Geometry], list[int]] | None:
    """The most customary geometry of each layer from side `start`, and every side that can be reached; the first layers may be `fixed`.

    A kernel as large as a fixed one that doubles the side most likely does it the same way. With `image_size`, the most customary
    plan that ends there, or none. Cost: one state per reachable side and layer.
    """
    reached: dict[int, tuple[float, list[Geometry]]] = {start: (0.0, [])}
    for index, kernel in enumerate(kernels):
        following: dict[int, tuple[float, list[Geometry]]] = {}
        for side, (cost, path) in reached.items():
            for rank, geometry in enumerate((fixed[index],) if index < len(fixed) else _likely(kernel, kernels, fixed)):
                after = side_after(side, kernel, geometry)
                worth = cost + 0.5 * (rank > 0) + 0.5 * rank
                if 1 <= after <= LARGEST and (after not in following or worth < following[after][0]):
                    following[after] = worth, [*path, geometry]
        reached = following
    sides = sorted(reached)
    if not reached or (image_size is not None and image_size not in reached):
        return ([], sides) if sides else None
    best = image_size or min(reached, key=lambda side: reached[side][0] + _UNUSUAL * (side not in USUAL_SIDES))
    return reached[best][1], sides


def _likely(kernel: int, kernels: Sequence[int], fixed: Sequence[Geometry]) -> list[Geometry]:
    """The geometries of a kernel; where the last fixed one of its size doubles the side, that one's is the first."""
    alike = [geometry for size, geometry in zip(kernels, fixed, strict=False) if size == kernel][-1:]
    return list(dict.fromkeys([*(geometry for geometry in alike if geometry[0] > 1), *CUSTOM.get(kernel, ())]))


def ways(start: int, kernels: Sequence[int], image_size: int, options: Sequence[Sequence[Geometry]]) -> list[tuple[Geometry, ...]]:
    """Geometries of the first layers, one of each's `options`, from which the others can lead to `image_size`; the most customary first."""
    found: list[tuple[Geometry, ...]] = [()]
    for given in options:
        longer = [(*path, geometry) for path in found for geometry in given]
        possible = [path for path in longer if (plan(start, kernels, image_size, path) or ([], []))[0]]
        found = sorted(possible, key=lambda path: sum(given.index(geometry) for given, geometry in zip(options, path, strict=False)))[:_PATHS]
    return found[:_WAYS]


def side_after(side: int, kernel: int, geometry: Geometry) -> int:
    """The side of a transposed convolution's output."""
    stride, padding, extra = geometry
    return (side - 1) * stride - 2 * padding + kernel + extra


def spelt(kernels: Iterable[int], geometries: Iterable[Geometry]) -> str:
    """In words: "2 times 4x4 with stride 2, padding 1; then 3x3 with stride 1, padding 1"."""
    parts = []
    for (kernel, (stride, padding, extra)), alike in itertools.groupby(zip(kernels, geometries, strict=False)):
        times = len(list(alike))
        outer = f", output padding {extra}" if extra else ""
        parts.append((f"{times} times " if times > 1 else "") + f"{kernel}x{kernel} with stride {stride}, padding {padding}{outer}")
    return "; then ".join(parts)


def written(geometry: Geometry) -> str:
    """As --strides takes it: "2/1", stride and padding, or "2/2/1" with an output padding."""
    return "/".join(map(str, geometry if geometry[2] else geometry[:2]))


def parsed(text: str) -> Geometry:
    """What `written` gave. ValueError for anything else, and for an output padding that torch refuses."""
    parts = [int(part) for part in text.split("/")]
    stride, padding, extra = (*parts, 0)[:3]
    if len(parts) not in (2, 3) or stride < 1 or padding < 0 or not 0 <= extra < stride:
        raise ValueError(text)
    return stride, padding, extra
