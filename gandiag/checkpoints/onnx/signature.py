"""What an ONNX graph's inputs and outputs are for: z, the class, numbers that are held; pictures, series or vectors, and their range. Torch-free."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from gandiag.checkpoints.inference.output_activation import FLAT_IMAGE_SHAPES
from gandiag.checkpoints.onnx.graph import OnnxGraph, ValueInfo
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LabelEncoding, LatentSpec, OutputSpec

FLOAT_DTYPES = {"float32": np.float32, "float16": np.float16, "float64": np.float64}
INTEGER_DTYPES = {"int64": np.int64, "int32": np.int32}
_LABEL = re.compile(r"(^|[^a-z])(y|c|label|class|classes|cond|condition|one_?hot|target)s?([^a-z]|$)", re.IGNORECASE)
_TRUNCATION = re.compile(r"psi|trunc", re.IGNORECASE)
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
_LARGEST = 10**8  # numbers of one latent or output


@dataclass(frozen=True, slots=True)
class GraphInputs:
    """The inputs by what they are for. `held`: scalars that stay at 1. `batch`: how many at a time, None where that is open."""

    latent: ValueInfo
    label: ValueInfo | None
    constants: tuple[ValueInfo, ...]
    batch_size: int | None


# inputs


def parse_graph_inputs(graph: OnnxGraph, name: str) -> GraphInputs:
    """Every input with its role. LoadError for images as inputs, and for inputs that nobody can fill in."""
    floats = [value for value in graph.inputs if value.dtype in FLOAT_DTYPES]
    held = [
        value for value in floats if len(value.dims) < 2 or (_TRUNCATION.search(value.name) and value.dims[-1] == 1)
    ]
    labels = [value for value in graph.inputs if value.dtype in INTEGER_DTYPES] or [
        value for value in floats if value not in held and len(floats) - len(held) > 1 and _LABEL.search(value.name)
    ]
    latents = [value for value in floats if value not in held and value not in labels]
    listed = ", ".join(f"{value.name} {value.dtype} ({', '.join(map(str, value.dims))})" for value in graph.inputs)
    if len(latents) != 1 or len(labels) > 1 or len(latents) + len(labels) + len(held) != len(graph.inputs):
        raise LoadError(
            f"{name} takes {listed or 'nothing'}, and which of it are latents cannot be told",
            "export a graph that takes z, or z and one label",
        )
    if any(not _TRUNCATION.search(value.name) for value in held):
        raise LoadError(
            f"{name} takes {listed}, and {held[0].name} is a number that gandiag does not know",
            "export it with that number fixed",
        )
    dims = latents[0].dims
    if len(dims) == 4 and dims[1] in (1, 3, 4) and all(isinstance(side, int) and side > 7 for side in dims[2:]):
        raise LoadError(
            f"{name} takes an image ({listed}), not latents: a translator or an encoder",
            "audit a folder of its outputs",
        )
    fixed = {value.dims[0] for value in (*latents, *labels) if value.dims and isinstance(value.dims[0], int)}
    if len(fixed) > 1:
        raise LoadError(
            f"{name} takes {listed}, which are batches of different sizes", "export it with an open batch axis"
        )
    return GraphInputs(
        latents[0], labels[0] if labels else None, tuple(held), next((int(size) for size in fixed), None)
    )


def require_valid_shape(shape: tuple[int, ...], description: str, name: str) -> None:
    """LoadError for a shape that nothing has; a damaged file may declare any."""
    if not all(0 < size <= _LARGEST for size in (math.prod(shape), *shape)):
        raise LoadError(
            f"{name} declares {description} of shape ({', '.join(map(str, shape))})",
            "export it again; up to 100 million numbers are taken",
        )


def infer_latent(value: ValueInfo, config: AuditConfig, name: str) -> tuple[LatentSpec, tuple[Assumption, ...]]:
    dims = value.dims[1:]
    shape = tuple(size if isinstance(size, int) else 1 for size in dims)
    source = f"file (input {value.name})"
    if isinstance(dims[0], str):
        if config.latent_dim is None:
            raise LoadError(
                f"{name} leaves the size of its latents open (input {value.name})", "give it: --latent-dim N"
            )
        shape, source = (config.latent_dim, *shape[1:]), "flag"
    dim = math.prod(shape)
    require_valid_shape(shape, "latents", name)
    if config.latent_dim not in (None, dim):
        raise LoadError(
            f"--latent-dim {config.latent_dim} contradicts {name}, whose input {value.name} has {dim} numbers",
            "remove --latent-dim",
        )
    prior = config.prior or "normal"
    said = (
        Assumption("latent size (--latent-dim)", f"{dim}, passed as (B, {', '.join(map(str, shape))})", source),
        Assumption("latent prior (--prior)", prior, "flag" if config.prior else "default"),
    )
    return LatentSpec(dim, prior, shape), said  # type: ignore[arg-type]


def infer_classes(
    graph: OnnxGraph, inputs: GraphInputs, config: AuditConfig, name: str
) -> tuple[int | None, LabelEncoding | None, tuple[Assumption, ...]]:
    value = inputs.label
    if value is None:
        if config.classes is not None:
            raise LoadError(f"--classes {config.classes} contradicts {name}, which takes no class", "remove --classes")
        return None, None, ()
    onehot = value.dtype in FLOAT_DTYPES or (
        len(value.dims) == 2 and value.dims[1] != 1 and isinstance(value.dims[1], int)
    )
    found = value.dims[-1] if onehot else graph.infer_num_classes(value.name)
    count = found if isinstance(found, int) else config.classes
    if count is None:
        raise LoadError(
            f"{name} takes a class (input {value.name}), and not how many there are", "give it: --classes N"
        )
    if config.classes not in (None, count):
        raise LoadError(
            f"--classes {config.classes} contradicts {name}, whose input {value.name} has {count}", "remove --classes"
        )
    how: LabelEncoding = "onehot" if onehot else "index"
    source = f"file (input {value.name})" if isinstance(found, int) else "flag"
    return (
        count,
        how,
        (
            Assumption(
                "classes (--classes, --condition)", f"{count}, as {'one-hot vectors' if onehot else 'an index'}", source
            ),
        ),
    )


def list_graph_assumptions(graph: OnnxGraph, inputs: GraphInputs) -> tuple[Assumption, ...]:
    said = [Assumption(f"input {value.name}", "held at 1: no truncation", "default") for value in inputs.constants]
    if inputs.batch_size is not None:
        said.append(
            Assumption(
                "batch", f"the graph takes exactly {inputs.batch_size} at a time", f"file (input {inputs.latent.name})"
            )
        )
    random = [operator for operator in _RANDOM if graph.operator_counts[operator]]
    if random:
        said.append(
            Assumption(
                "noise", f"the graph draws its own ({', '.join(random)}), which no seed of gandiag reaches", "file"
            )
        )
    return tuple(said)


# outputs


def get_declared_shape(graph: OnnxGraph) -> tuple[int, ...] | None:
    """One sample's shape as the file declares it, where it does so fully."""
    dims = graph.outputs[0].dims if graph.outputs else ()
    known = tuple(size for size in dims[1:] if isinstance(size, int) and size > 0)
    return known if known and len(known) == len(dims) - 1 else None


def infer_output(
    graph: OnnxGraph, shape: tuple[int, ...], value_range: tuple[float, float] | None, config: AuditConfig
) -> tuple[OutputSpec, bool, float, tuple[Assumption, ...]]:
    """(what one sample is, whether its channels come last, what to divide by, what to say). `span`: smallest and largest of a few outputs."""
    shape, last_channels, said = _shape(shape, config)
    kind = {3: "image", 2: "series"}.get(len(shape), "vector")
    value, last = graph.outputs[0], graph.find_last_operator(graph.outputs[0].name)
    divisor = 255.0 if value.dtype == "uint8" else 1.0
    value_range = None if value_range is None else (value_range[0] / divisor, value_range[1] / divisor)
    bounds, why, source = _range(value, last, value_range, config, kind)
    if bounds is not None:
        said = [*said, Assumption("output range (--output-range)", f"[{bounds[0]:g}, {bounds[1]:g}] ({why})", source)]
    return OutputSpec(kind, shape, bounds), last_channels, divisor, tuple(said)  # type: ignore[arg-type]


def _range(
    value: ValueInfo, last: str, span: tuple[float, float] | None, config: AuditConfig, kind: str
) -> tuple[tuple[float, float] | None, str, str]:
    known = {"Tanh": (-1.0, 1.0), "Sigmoid": (0.0, 1.0)}.get(last)
    if config.output_range is not None:
        return (config.output_range[0], config.output_range[1]), "declared", "flag"
    if value.dtype == "uint8":
        return (0.0, 1.0), "bytes, divided by 255", f"file (output {value.name})"
    if known is not None:
        return known, f"the last operator is {last}", f"file (output {value.name})"
    if kind != "image":
        return None, "", ""
    spans = "" if span is None else f"; a few outputs span [{span[0]:.3g}, {span[1]:.3g}]"
    return (
        (-1.0 if span is None or span[0] < 0 else 0.0, 1.0),
        f"the last operator is {last or 'unknown'}{spans}",
        "default",
    )


def _shape(shape: tuple[int, ...], config: AuditConfig) -> tuple[tuple[int, ...], bool, list[Assumption]]:
    """(channels first, whether they came last, what to say)."""
    if len(shape) > 3:
        raise LoadError(
            f"the graph returns samples of shape {shape}",
            "gandiag takes images (C, H, W), series (C, T) and vectors (D,)",
        )
    if len(shape) == 3 and shape[2] in (1, 3, 4) and (shape[0] not in (1, 3, 4) or shape[0] == shape[1] != shape[2]):
        return (
            (shape[2], *shape[:2]),
            True,
            [Assumption("image layout", f"channels last {shape}, turned to the front", "file (output)")],
        )
    if len(shape) == 1 and (config.image_size or shape[0] in FLAT_IMAGE_SHAPES):
        side = config.image_size or FLAT_IMAGE_SHAPES[shape[0]][1]
        if shape[0] % (side * side):
            raise LoadError(
                f"--image-size {side} contradicts the graph: it returns {shape[0]} values", "remove --image-size"
            )
        flat = (shape[0] // (side * side), side, side)
        source = "flag" if config.image_size else "default"
        return (
            flat,
            False,
            [
                Assumption(
                    "image shape (--image-size, --channels)",
                    f"{shape[0]} outputs are read as {'x'.join(map(str, flat))}",
                    source,
                )
            ],
        )
    return shape, False, []
