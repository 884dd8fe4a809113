"""Infers how to call an arbitrary nn.Module as a generator, from flags, shapes and a trial run."""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.checkpoints.inference.output_activation import FLAT_IMAGE_SHAPES
from gandiag.checkpoints.key_names import first_line
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LabelEncoding, LatentSpec, OutputSpec, SampleKind

ForwardFunction = Callable[[Tensor, Tensor | None], Tensor]
_TRIAL_BATCH = 3  # an unusual batch size, so that an equal first axis is no coincidence
_LATENT_ATTRIBUTES = (
    "latent_dim",
    "nz",
    "z_dim",
    "dim_z",
    "noise_dim",
    "latent_size",
    "dim_latent",
    "n_latent",
    "zdim",
)


@dataclass(frozen=True, slots=True)
class CallSignature:
    """How to call a module. `condition` None: it takes no labels."""

    latent: LatentSpec
    output: OutputSpec
    classes: int | None
    condition: LabelEncoding | None
    assumptions: tuple[Assumption, ...]


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in eval mode, without gradients; the original is unchanged.

    Weights computed on the fly (old spectral and weight norm) are not leaves and cannot be copied; the copy gets them
    detached.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        with torch.no_grad():
            copied = copy.deepcopy(module, memo)
    except Exception as error:
        raise LoadError(
            f"{type(module).__name__} cannot be copied: {error}",
            "pass a module without open files, hooks or streams in it",
        ) from error
    if _share_weights(module, copied):
        raise LoadError(
            f"{type(module).__name__} cannot be copied: its copy shares weights with it",
            "give it a __deepcopy__ that copies",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about the gradients of a copied TorchScript module
        copied = copied.to("cpu").eval()
    for parameter in copied.parameters():  # TorchScript modules have no requires_grad_
        parameter.requires_grad = False
    return copied


def _share_weights(module: nn.Module, copied: nn.Module) -> bool:
    """Whether changing one would change the other."""
    own = {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers()) if tensor.numel()}
    others = (tensor.data_ptr() for tensor in (*copied.parameters(), *copied.buffers()) if tensor.numel())
    return copied is module or any(place in own for place in others)


def infer_call_signature(module: nn.Module, config: AuditConfig) -> CallSignature:
    """Find a call that works: z as (B, dim) or (B, dim, 1, 1), labels as an index, one-hot, or concatenated to z.

    LoadError with the module's own error message if none works, or if the latent size cannot be inferred.
    """
    error = ""
    for dim, source, origin in _latent_sizes(module, config):
        for shape in ((dim,), (dim, 1, 1)):
            for condition in _label_encodings(module, config):
                latent = LatentSpec(dim, config.prior or "normal", shape)  # type: ignore[arg-type]
                samples, problem = try_call(module, latent, config.classes, condition)
                if samples is not None:
                    size = Assumption("latent_dim", dim, source, origin, note=f"passed as {format_batch_shape(shape)}")
                    return _signature(samples, latent, condition, size, module, config)
                error = error or problem
    raise _call_error(module, config, error)


def format_batch_shape(shape: tuple[int, ...]) -> str:
    """(12, 1, 1) -> "(B, 12, 1, 1)"."""
    return f"(B, {', '.join(map(str, shape))})"


def try_call(
    module: nn.Module, latent: LatentSpec, classes: int | None, condition: LabelEncoding | None
) -> tuple[Tensor | None, str]:
    """The module's output for a few latents, or None and the error message. The global random state is preserved."""
    rng = torch.Generator().manual_seed(3)
    z = torch.randn(_TRIAL_BATCH, *latent.shape, generator=rng)
    labels = torch.arange(_TRIAL_BATCH) % classes if classes and condition else None
    try:
        with isolated_no_grad():
            samples = extract_samples(call_generator(module, z, labels, (condition, classes)))
    except Exception as error:
        return None, first_line(error, 200)
    if samples.ndim < 2 or len(samples) != _TRIAL_BATCH:
        return None, f"it returned a tensor of shape {tuple(samples.shape)} for {_TRIAL_BATCH} latents"
    return samples, ""


@contextlib.contextmanager
def isolated_no_grad() -> Iterator[None]:
    """Disable gradients and restore the global random state afterwards: networks may draw noise of their own."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.random.manual_seed(0)
        yield


def call_generator(
    module: nn.Module,
    z: Tensor,
    labels: Tensor | None,
    conditioning: tuple[LabelEncoding | None, int | None],
    *,
    labels_first: bool = False,
) -> Any:
    """The module's raw output. `conditioning`: (condition, classes)."""
    condition, classes = conditioning
    if labels is None or condition is None:
        return module(z)
    if condition == "index":
        return module(z, labels)
    onehot = torch.nn.functional.one_hot(labels, classes or -1).to(z)  # (B, K)
    if condition == "onehot":
        return module(z, onehot)
    onehot = onehot.reshape(*onehot.shape, *(1 for _ in z.shape[2:]))
    return module(torch.cat([onehot, z] if labels_first else [z, onehot], 1))


def extract_samples(output: Any) -> Tensor:
    """The samples in a module's output: its largest floating-point tensor, the first if tied. LoadError without one."""
    tensors = [tensor for tensor in _iter_output_tensors(output) if tensor.is_floating_point()]
    if not tensors:
        raise LoadError(
            f"the network returned {type(output).__name__} without a tensor in it",
            "wrap it in a module that returns the samples",
        )
    return max(tensors, key=lambda tensor: tensor.numel())


def _iter_output_tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (list, tuple)):
        for entry in output:
            yield from _iter_output_tensors(entry)
    elif isinstance(output, dict) or hasattr(output, "values"):
        for entry in output.values():
            yield from _iter_output_tensors(entry)


# what to try


def _latent_sizes(module: nn.Module, config: AuditConfig) -> list[tuple[int, str, str]]:
    """Possible latent sizes with source and origin, likeliest first."""
    if config.latent_dim is not None:
        return [(config.latent_dim, "flag", "")]
    attributes = ((name, getattr(module, name, None)) for name in _LATENT_ATTRIBUTES)
    sizes = [(value, "attribute", name) for name, value in attributes if isinstance(value, int) and value > 0]
    width = _first_layer_width(module)
    if width:
        whole = [(width, "shapes", "")]
        without_labels = []
        if config.classes and width > config.classes:
            without_labels = [(width - config.classes, "shapes", "")]
        sizes += without_labels + whole if config.condition == "concat" else whole + without_labels
        embeddings = [part.embedding_dim for part in module.modules() if isinstance(part, nn.Embedding)]
        sizes += [(width - size, "shapes", "") for size in embeddings if width > size]
    if not sizes:
        raise LoadError(
            f"the latent size of {type(module).__name__} cannot be inferred from its weights", "give it: --latent-dim N"
        )
    return list(dict.fromkeys(sizes))


def _first_layer_width(module: nn.Module) -> int | None:
    """Input features of the first linear or transposed-convolution layer, else of the first matrix or kernel."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.ConvTranspose2d)):
            return int(part.in_features if isinstance(part, nn.Linear) else part.in_channels)
    first = next((entry for entry in module.parameters() if entry.ndim in (2, 4)), None)
    if first is None:
        return None
    return int(first.shape[1] if first.ndim == 2 else first.shape[0])


def _label_encodings(module: nn.Module, config: AuditConfig) -> list[LabelEncoding | None]:
    if config.condition is not None:
        return [config.condition]  # type: ignore[list-item]
    return [None] if config.classes is None else ["index", "onehot", "concat"]


def _call_error(module: nn.Module, config: AuditConfig, error: str) -> LoadError:
    name = type(module).__name__
    classes = next((part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)), None)
    if config.classes is None and (_count_required_arguments(module) > 1 or classes):
        count = f" ({classes} classes, by its embedding)" if classes else ""
        return LoadError(
            f"{name} needs class labels{count}: {error}",
            f"give --classes {classes or 'N'} --condition index, or onehot, or concat",
        )
    return LoadError(f"{name} cannot be called with latents: {error}", "check --latent-dim, --classes and --condition")


def _count_required_arguments(module: nn.Module) -> int:
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(
        entry.default is entry.empty and entry.kind in (entry.POSITIONAL_ONLY, entry.POSITIONAL_OR_KEYWORD)
        for entry in parameters
    )


# what came out


def _signature(
    samples: Tensor,
    latent: LatentSpec,
    condition: LabelEncoding | None,
    size: Assumption,
    module: nn.Module,
    config: AuditConfig,
) -> CallSignature:
    output, output_assumptions = _describe_output(samples, module, config)
    prior = Assumption("prior", latent.prior, "flag" if config.prior else "default")
    assumptions = [size, prior, *output_assumptions]
    if condition is None:
        return CallSignature(latent, output, None, None, tuple(assumptions))
    source = "flag" if config.condition else "default"
    assumptions.append(Assumption("condition", condition, source, note=f"{config.classes} classes"))
    return CallSignature(latent, output, config.classes, condition, tuple(assumptions))


def _describe_output(samples: Tensor, module: nn.Module, config: AuditConfig) -> tuple[OutputSpec, list[Assumption]]:
    shape, assumptions = sample_shape(tuple(samples.shape[1:]), config)
    kind = sample_kind(shape)
    if config.output_range is not None:
        low, high = config.output_range
        return OutputSpec(kind, shape, (low, high)), [*assumptions, Assumption("output_range", (low, high), "flag")]
    last = next(reversed([part for part in module.modules() if not list(part.children())]), None)
    bounds = None
    if isinstance(last, nn.Tanh):
        bounds = (-1.0, 1.0)
    elif isinstance(last, nn.Sigmoid):
        bounds = (0.0, 1.0)
    if kind != "image":
        return OutputSpec(kind, shape, bounds), assumptions
    low, high = float(samples.min()), float(samples.max())
    source = "module" if bounds else "default"
    if bounds is None:
        bounds = (0.0, 1.0) if low >= 0 and high <= 1 else (-1.0, 1.0)
    note = f"a few outputs span [{low:.3g}, {high:.3g}]"
    return OutputSpec("image", shape, bounds), [*assumptions, Assumption("output_range", bounds, source, note=note)]


def sample_kind(shape: tuple[int, ...]) -> SampleKind:
    """(C, H, W) is an image, (C, T) a series, anything else a vector."""
    if len(shape) == 3:
        return "image"
    return "series" if len(shape) == 2 else "vector"


def sample_shape(shape: tuple[int, ...], config: AuditConfig) -> tuple[tuple[int, ...], list[Assumption]]:
    """The shape of one sample. Flat outputs become images under --image-size, or if their size is a common image's."""
    if len(shape) > 3:
        raise LoadError(
            f"the network returns samples of shape {shape}",
            "gandiag takes images (C, H, W), series (C, T) and vectors (D,)",
        )
    if len(shape) != 1:
        return shape, []
    n_values, size = shape[0], config.image_size
    if size:
        channels, rest = divmod(n_values, size**2)
        if rest or not channels:
            raise LoadError(
                f"--image-size {size} contradicts the network: it returns {n_values} values",
                "remove --image-size",
            )
        return (channels, size, size), []
    image_shape = FLAT_IMAGE_SHAPES.get(n_values)
    if image_shape is None:
        return shape, []
    return image_shape, [Assumption("image_shape", image_shape, "default", note=f"read from {n_values} outputs")]
