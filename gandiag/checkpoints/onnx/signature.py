"""Infers what an ONNX graph's inputs and outputs are: z, class, constants; image, series or vector, and its range.

Torch-free.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from gandiag.checkpoints.inference.output_activation import FLAT_IMAGE_SHAPES
from gandiag.checkpoints.onnx.graph import OnnxGraph, ValueInfo
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LabelEncoding, LatentSpec, OutputSpec, SampleKind

FLOAT_DTYPES = {"float32": np.float32, "float16": np.float16, "float64": np.float64}
INTEGER_DTYPES = {"int64": np.int64, "int32": np.int32}
_LABEL = re.compile(r"(^|[^a-z])(y|c|label|class|classes|cond|condition|one_?hot|target)s?([^a-z]|$)", re.IGNORECASE)
_TRUNCATION = re.compile(r"psi|trunc", re.IGNORECASE)
_RANDOM_OPERATORS = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)
_RANGE_OF_OPERATOR = {"Tanh": (-1.0, 1.0), "Sigmoid": (0.0, 1.0)}
_CHANNELS = (1, 3, 4)
_MAX_SIZE = 10**8  # values of one latent or output


@dataclass(frozen=True, slots=True)
class GraphInputs:
    """A graph's inputs by role. `constants`: scalars held at 1; `batch_size`: None if it is dynamic."""

    latent: ValueInfo
    label: ValueInfo | None
    constants: tuple[ValueInfo, ...]
    batch_size: int | None


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """A graph's output. `channels_last`: images are (H, W, C) in the graph; `divisor`: 255 for bytes, else 1."""

    spec: OutputSpec
    channels_last: bool
    divisor: float
    assumptions: tuple[Assumption, ...]


# inputs


def parse_graph_inputs(graph: OnnxGraph, name: str) -> GraphInputs:
    """Assign every input its role. LoadError for images as inputs, and for inputs of unknown purpose."""
    floats = [value for value in graph.inputs if value.dtype in FLOAT_DTYPES]
    constants = [value for value in floats if _is_constant(value)]
    variables = [value for value in floats if value not in constants]
    labels = [value for value in graph.inputs if value.dtype in INTEGER_DTYPES]
    if not labels and len(variables) > 1:
        labels = [value for value in variables if _LABEL.search(value.name)]
    latents = [value for value in variables if value not in labels]
    listed = ", ".join(value.describe() for value in graph.inputs)
    if len(latents) != 1 or len(labels) > 1 or len(latents) + len(labels) + len(constants) != len(graph.inputs):
        raise LoadError(
            f"{name} takes {listed or 'no inputs'}; which of them are the latents is unclear",
            "export a graph that takes z, or z and one label",
        )
    if any(not _TRUNCATION.search(value.name) for value in constants):
        raise LoadError(
            f"{name} takes {listed}; {constants[0].name} is a number that gandiag does not know",
            "export it with that number fixed",
        )
    dims = latents[0].dims
    if len(dims) == 4 and dims[1] in _CHANNELS and all(isinstance(size, int) and size > 7 for size in dims[2:]):
        raise LoadError(
            f"{name} takes an image ({listed}), not latents: it is an image-to-image network or an encoder",
            "audit a folder of its outputs",
        )
    batch_sizes = {value.dims[0] for value in (*latents, *labels) if value.dims and isinstance(value.dims[0], int)}
    if len(batch_sizes) > 1:
        raise LoadError(f"{name} takes {listed}: the batch sizes differ", "export it with a dynamic batch axis")
    batch_size = next((int(size) for size in batch_sizes), None)
    return GraphInputs(latents[0], labels[0] if labels else None, tuple(constants), batch_size)


def _is_constant(value: ValueInfo) -> bool:
    """Whether a float input is a scalar, such as a truncation psi."""
    return len(value.dims) < 2 or (_TRUNCATION.search(value.name) is not None and value.dims[-1] == 1)


def require_valid_shape(shape: tuple[int, ...], description: str, name: str) -> None:
    """LoadError for an impossible shape: a damaged file may declare any."""
    if not all(0 < size <= _MAX_SIZE for size in (math.prod(shape), *shape)):
        raise LoadError(
            f"{name} declares {description} of shape ({', '.join(map(str, shape))})",
            "export it again; gandiag takes up to 100 million values",
        )


def infer_latent(value: ValueInfo, config: AuditConfig, name: str) -> tuple[LatentSpec, tuple[Assumption, ...]]:
    """The latent, from the input's dims or --latent-dim."""
    dims = value.dims[1:]
    shape = tuple(size if isinstance(size, int) else 1 for size in dims)
    source, origin = "file", f"input {value.name}"
    if isinstance(dims[0], str):
        if config.latent_dim is None:
            raise LoadError(
                f"{name} leaves the size of its latents open (input {value.name})", "give it: --latent-dim N"
            )
        shape, source, origin = (config.latent_dim, *shape[1:]), "flag", ""
    dim = math.prod(shape)
    require_valid_shape(shape, "latents", name)
    if config.latent_dim not in (None, dim):
        raise LoadError(
            f"--latent-dim {config.latent_dim} contradicts {name}, whose input {value.name} has {dim} values",
            "remove --latent-dim",
        )
    prior = config.prior or "normal"
    assumptions = (
        Assumption("latent_dim", dim, source, origin, note=f"passed as (B, {', '.join(map(str, shape))})"),
        Assumption("prior", prior, "flag" if config.prior else "default"),
    )
    return LatentSpec(dim, prior, shape), assumptions  # type: ignore[arg-type]


def infer_classes(
    graph: OnnxGraph, inputs: GraphInputs, config: AuditConfig, name: str
) -> tuple[int | None, LabelEncoding | None, tuple[Assumption, ...]]:
    """Number of classes and how they are passed. LoadError if the number is unknown or contradicts --classes."""
    value = inputs.label
    if value is None:
        if config.classes is not None:
            raise LoadError(f"--classes {config.classes} contradicts {name}, which takes no class", "remove --classes")
        return None, None, ()
    is_vector = len(value.dims) == 2 and value.dims[1] != 1 and isinstance(value.dims[1], int)
    onehot = value.dtype in FLOAT_DTYPES or is_vector
    stated = value.dims[-1] if onehot else graph.infer_num_classes(value.name)
    classes = stated if isinstance(stated, int) else config.classes
    if classes is None:
        raise LoadError(
            f"{name} takes a class (input {value.name}) and does not state how many there are", "give it: --classes N"
        )
    if config.classes not in (None, classes):
        raise LoadError(
            f"--classes {config.classes} contradicts {name}, whose input {value.name} has {classes}", "remove --classes"
        )
    note = "as one-hot vectors" if onehot else "as an index"
    assumption = Assumption("classes", classes, "flag", note=note)
    if isinstance(stated, int):
        assumption = Assumption("classes", classes, "file", f"input {value.name}", note=note)
    return classes, "onehot" if onehot else "index", (assumption,)


def list_graph_assumptions(graph: OnnxGraph, inputs: GraphInputs) -> tuple[Assumption, ...]:
    """Assumptions about constants, batch size and noise."""
    assumptions = [
        Assumption("constant_input", value.name, "default", note="held at 1: no truncation")
        for value in inputs.constants
    ]
    if inputs.batch_size is not None:
        origin = f"input {inputs.latent.name}"
        assumptions.append(
            Assumption("batch", inputs.batch_size, "file", origin, note="the graph takes exactly that many")
        )
    random = [operator for operator in _RANDOM_OPERATORS if graph.operator_counts[operator]]
    if random:
        note = f"the graph draws its own ({', '.join(random)}), which gandiag cannot seed"
        assumptions.append(Assumption("graph_noise", "random", "file", note=note))
    return tuple(assumptions)


# outputs


def get_declared_shape(graph: OnnxGraph) -> tuple[int, ...] | None:
    """Shape of one sample, if the file declares it fully."""
    dims = graph.outputs[0].dims if graph.outputs else ()
    known = tuple(size for size in dims[1:] if isinstance(size, int) and size > 0)
    return known if known and len(known) == len(dims) - 1 else None


def infer_output(
    graph: OnnxGraph, shape: tuple[int, ...], value_range: tuple[float, float] | None, config: AuditConfig
) -> GraphOutput:
    """Interpret the output. `value_range`: smallest and largest of a few outputs, if the graph was run."""
    shape, channels_last, assumptions = _resolve_shape(shape, config)
    kind: SampleKind = "vector"
    if len(shape) > 1:
        kind = "image" if len(shape) == 3 else "series"
    value, last_operator = graph.outputs[0], graph.find_last_operator(graph.outputs[0].name)
    divisor = 255.0 if value.dtype == "uint8" else 1.0
    if value_range is not None:
        value_range = (value_range[0] / divisor, value_range[1] / divisor)
    assumption = _resolve_range(value, last_operator, value_range, config, kind)
    if assumption is None:
        return GraphOutput(OutputSpec(kind, shape, None), channels_last, divisor, tuple(assumptions))
    return GraphOutput(OutputSpec(kind, shape, assumption.value), channels_last, divisor, (*assumptions, assumption))


def _resolve_range(
    value: ValueInfo, last_operator: str, span: tuple[float, float] | None, config: AuditConfig, kind: SampleKind
) -> Assumption | None:
    """The output range: by flag, dtype or last operator; images have a default, other outputs none."""
    origin = f"output {value.name}"
    if config.output_range is not None:
        return Assumption("output_range", (config.output_range[0], config.output_range[1]), "flag", note="declared")
    if value.dtype == "uint8":
        return Assumption("output_range", (0.0, 1.0), "file", origin, note="bytes, divided by 255")
    note = f"the last operator is {last_operator or 'unknown'}"
    if last_operator in _RANGE_OF_OPERATOR:
        return Assumption("output_range", _RANGE_OF_OPERATOR[last_operator], "file", origin, note=note)
    if kind != "image":
        return None
    if span is None:
        return Assumption("output_range", (-1.0, 1.0), "default", note=note)
    note += f"; a few outputs span [{span[0]:.3g}, {span[1]:.3g}]"
    return Assumption("output_range", (-1.0 if span[0] < 0 else 0.0, 1.0), "default", note=note)


def _resolve_shape(shape: tuple[int, ...], config: AuditConfig) -> tuple[tuple[int, ...], bool, list[Assumption]]:
    """(shape with channels first, whether the graph has them last, assumptions)."""
    if len(shape) > 3:
        raise LoadError(
            f"the graph returns samples of shape {shape}",
            "gandiag takes images (C, H, W), series (C, T) and vectors (D,)",
        )
    if len(shape) == 3 and shape[2] in _CHANNELS and (shape[0] not in _CHANNELS or shape[0] == shape[1] != shape[2]):
        note = f"{shape} in the graph, moved to the front"
        return (
            (shape[2], *shape[:2]),
            True,
            [Assumption("image_layout", "channels last", "file", "output", note=note)],
        )
    if len(shape) == 1 and (config.image_size or shape[0] in FLAT_IMAGE_SHAPES):
        size = config.image_size or FLAT_IMAGE_SHAPES[shape[0]][1]
        if shape[0] % (size * size):
            raise LoadError(
                f"--image-size {size} contradicts the graph: it returns {shape[0]} values", "remove --image-size"
            )
        image_shape = (shape[0] // (size * size), size, size)
        source = "flag" if config.image_size else "default"
        return (
            image_shape,
            False,
            [Assumption("image_shape", image_shape, source, note=f"read from {shape[0]} outputs")],
        )
    return shape, False, []
