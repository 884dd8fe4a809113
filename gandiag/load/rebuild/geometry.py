"""Which stride and padding did a transposed convolution have? Kernels do not say; the image size and custom do."""

from __future__ import annotations

from collections.abc import Sequence

# kernel -> (stride, padding, output padding), the customary one first
CUSTOM: dict[int, tuple[tuple[int, int, int], ...]] = {
    1: ((1, 0, 0), (1, 2, 0)),
    2: ((2, 0, 0),),
    3: ((1, 1, 0), (2, 1, 1), (2, 1, 0), (2, 0, 0), (1, 0, 0)),
    4: ((2, 1, 0), (2, 0, 0), (1, 0, 0), (2, 2, 0)),
    5: ((2, 2, 1), (1, 2, 0), (2, 2, 0)),
    6: ((2, 2, 0),),
    7: ((1, 3, 0), (1, 0, 0), (2, 3, 1)),
}
USUAL_SIDES = (16, 24, 28, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
_UNUSUAL = 1.5  # a final side that nobody uses costs more than one unusual layer

Geometry = tuple[int, int, int]


def plan(start: int, kernels: Sequence[int], image_size: int | None, fixed: Sequence[Geometry] = ()) -> tuple[list[Geometry], list[int]] | None:
    """The most customary geometry of each layer from side `start`, and every side that can be reached; the first layers may be `fixed`.

    With `image_size`, the most customary that ends there, or None. Cost: one state per reachable side and layer.
    """
    reached: dict[int, tuple[float, list[Geometry]]] = {start: (0.0, [])}
    for index, kernel in enumerate(kernels):
        following: dict[int, tuple[float, list[Geometry]]] = {}
        for side, (cost, path) in reached.items():
            for rank, geometry in enumerate((fixed[index],) if index < len(fixed) else CUSTOM.get(kernel, ())):
                after = side_after(side, kernel, geometry)
                worth = cost + 0.5 * (rank > 0) + 0.5 * rank
                if 1 <= after <= 2048 and (after not in following or worth < following[after][0]):
                    following[after] = worth, [*path, geometry]
        reached = following
    sides = sorted(reached)
    if not reached or (image_size is not None and image_size not in reached):
        return ([], sides) if sides else None
    best = image_size or min(reached, key=lambda side: reached[side][0] + _UNUSUAL * (side not in USUAL_SIDES))
    return reached[best][1], sides


def side_after(side: int, kernel: int, geometry: Geometry) -> int:
    """The side of a transposed convolution's output."""
    stride, padding, extra = geometry
    return (side - 1) * stride - 2 * padding + kernel + extra


def spelt(kernel: int, geometry: Geometry) -> str:
    """k4s2p1, with +1 for an output padding of 1."""
    stride, padding, extra = geometry
    return f"k{kernel}s{stride}p{padding}" + (f"+{extra}" if extra else "")
