"""Infers stride and padding of transposed convolutions from the image size and common choices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

StrideSpec = tuple[int, int, int]  # stride, padding, output padding

# kernel size -> (stride, padding, output padding), the most common first
COMMON_STRIDES: dict[int, tuple[StrideSpec, ...]] = {
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
_MAX_RESULTS, _BEAM_WIDTH = (
    24,
    100,
)  # combinations returned for one image size; partial combinations kept while searching
_UNCOMMON_SIZE_COST = 1.5  # more than one uncommon layer


def infer_strides(
    start_size: int, kernel_sizes: Sequence[int], image_size: int | None, fixed: Sequence[StrideSpec] = ()
) -> tuple[list[StrideSpec], list[int]] | None:
    """The most common strides that lead from `start_size` to `image_size` or, without it, to the likeliest size.

    `fixed`: strides of the first layers. A kernel as large as a fixed one that upsamples most likely has the same
    strides. Returns (strides of each layer, every reachable size); the strides are empty where `image_size` cannot be
    reached, and the result is None where nothing can. Cost: one state per reachable size and layer.
    """
    reached: dict[int, tuple[float, list[StrideSpec]]] = {start_size: (0.0, [])}
    for index, kernel in enumerate(kernel_sizes):
        options = (fixed[index],) if index < len(fixed) else _rank_strides(kernel, kernel_sizes, fixed)
        reached = _add_layer(reached, kernel, options)
    sizes = sorted(reached)
    if not reached or (image_size is not None and image_size not in reached):
        return ([], sizes) if sizes else None
    best = image_size or min(
        reached, key=lambda size: reached[size][0] + _UNCOMMON_SIZE_COST * (size not in COMMON_IMAGE_SIZES)
    )
    return reached[best][1], sizes


def _add_layer(
    reached: dict[int, tuple[float, list[StrideSpec]]], kernel: int, options: Sequence[StrideSpec]
) -> dict[int, tuple[float, list[StrideSpec]]]:
    """The sizes after one more layer: size -> (cost, cheapest strides that lead there)."""
    result: dict[int, tuple[float, list[StrideSpec]]] = {}
    for size, (cost, path) in reached.items():
        for rank, stride_spec in enumerate(options):
            next_size = transposed_conv_size(size, kernel, stride_spec)
            next_cost = cost + 0.5 * (rank > 0) + 0.5 * rank
            if 1 <= next_size <= MAX_IMAGE_SIZE and (next_size not in result or next_cost < result[next_size][0]):
                result[next_size] = next_cost, [*path, stride_spec]
    return result


def _rank_strides(kernel: int, kernel_sizes: Sequence[int], fixed: Sequence[StrideSpec]) -> list[StrideSpec]:
    """Strides of a kernel, the likeliest first.

    Those of the last fixed layer of its size that upsamples, unless a later one of its size keeps the image's.
    """
    same_size = [stride_spec for size, stride_spec in zip(kernel_sizes, fixed, strict=False) if size == kernel]
    keeps_size = bool(same_size) and transposed_conv_size(8, kernel, same_size[-1]) == 8
    upsampling = [] if keeps_size else [stride_spec for stride_spec in same_size if stride_spec[0] > 1][-1:]
    return list(dict.fromkeys([*upsampling, *COMMON_STRIDES.get(kernel, ())]))


def enumerate_strides(
    start_size: int, kernel_sizes: Sequence[int], image_size: int, candidates: Sequence[Sequence[StrideSpec]]
) -> list[tuple[StrideSpec, ...]]:
    """Strides of the first layers, one of each layer's `candidates`, from which `image_size` can be reached.

    The most common first.
    """
    paths: list[tuple[StrideSpec, ...]] = [()]
    for options in candidates:
        extended = [(*path, stride_spec) for path in paths for stride_spec in options]
        possible = [
            path for path in extended if (infer_strides(start_size, kernel_sizes, image_size, path) or ([], []))[0]
        ]
        paths = sorted(possible, key=lambda path: _total_rank(path, candidates))[:_BEAM_WIDTH]
    return paths[:_MAX_RESULTS]


def _total_rank(path: Sequence[StrideSpec], candidates: Sequence[Sequence[StrideSpec]]) -> int:
    return sum(options.index(stride_spec) for options, stride_spec in zip(candidates, path, strict=False))


def transposed_conv_size(input_size: int, kernel_size: int, stride_spec: StrideSpec) -> int:
    """Output size of a transposed convolution."""
    stride, padding, output_padding = stride_spec
    return (input_size - 1) * stride - 2 * padding + kernel_size + output_padding


def format_stride(stride_spec: StrideSpec) -> str:
    """As --strides takes it: "2/1", stride and padding, or "2/2/1" with an output padding."""
    return "/".join(map(str, stride_spec if stride_spec[2] else stride_spec[:2]))


def format_strides(stride_specs: Iterable[StrideSpec]) -> str:
    """As --strides takes them: "2/1,2/1"."""
    return ",".join(map(format_stride, stride_specs))


def describe_kernels(kernel_sizes: Sequence[int]) -> str:
    """ "4x4 kernel", "4x4 kernels" or "kernels 3x3, 4x4"."""
    sizes = [f"{size}x{size}" for size in kernel_sizes]
    if len({*sizes}) == 1:
        return f"{sizes[0]} kernel{'s' * (len(sizes) > 1)}"
    return f"kernels {', '.join(sizes)}"


def parse_stride(text: str) -> StrideSpec:
    """The inverse of `format_stride`. ValueError for anything else, and for an output padding that torch refuses."""
    parts = [int(part) for part in text.split("/")]
    stride, padding, output_padding = (*parts, 0)[:3]
    if len(parts) not in (2, 3) or stride < 1 or padding < 0 or not 0 <= output_padding < stride:
        raise ValueError(text)
    return stride, padding, output_padding
