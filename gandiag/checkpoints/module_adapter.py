"""Any nn.Module as a generator: what its latents, labels and outputs look like, found by flags, shapes and a dry run."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.checkpoints.inference.output_activation import FLAT_IMAGE_SHAPES
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LabelEncoding, LatentSpec, OutputSpec

ForwardFunction = Callable[[Tensor, Tensor | None], Tensor]
_TRIAL = 3  # a batch that is no customary size, so that a matching first axis is no accident
_NAMES = ("latent_dim", "nz", "z_dim", "dim_z", "noise_dim", "latent_size", "dim_latent", "n_latent", "zdim")


@dataclass(frozen=True, slots=True)
class CallSignature:
    """How to call a module. `condition` None means that it takes no label."""

    latent: LatentSpec
    output: OutputSpec
    classes: int | None
    condition: LabelEncoding | None
    assumptions: tuple[Assumption, ...]


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in eval mode, without gradients; the original is left alone.

    Weights that are computed on the fly (old spectral and weight norm) are no leaves and refuse to be copied: they are
    handed to the copy detached.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        twin = copy.deepcopy(module, memo)
    except Exception as broken:
        raise LoadError(
            f"{type(module).__name__} cannot be copied: {broken}",
            "pass a module without open files, hooks or streams in it",
        ) from broken
    return twin.to("cpu").eval().requires_grad_(False)


def infer_call_signature(module: nn.Module, config: AuditConfig) -> CallSignature:
    """Find a way to call the module: (B, dim) or (B, dim, 1, 1), with the label as an index, one-hot, or joined to z.

    LoadError with the module's own complaint if none works, or if the latent size cannot be told.
    """
    dims = _dims(module, config)
    complaint = ""
    for dim, source in dims:
        for shape in ((dim,), (dim, 1, 1)):
            for condition in _conditions(module, config):
                latent = LatentSpec(dim, config.prior or "normal", shape)  # type: ignore[arg-type]
                made, why = try_call(module, latent, config.classes, condition)
                if made is not None:
                    return _adapted(made, (latent, source), condition, (module, config))
                complaint = complaint or why
    raise _uncallable(module, config, complaint)


def try_call(
    module: nn.Module, latent: LatentSpec, classes: int | None, condition: LabelEncoding | None
) -> tuple[Tensor | None, str]:
    """The module's output for a few latents, or None and its complaint. The global random state is left as it was."""
    rng = torch.Generator().manual_seed(3)
    z = torch.randn(_TRIAL, *latent.shape, generator=rng)
    labels = torch.arange(_TRIAL) % classes if classes and condition else None
    try:
        with isolated_no_grad():
            made = extract_samples(call_generator(module, z, labels, (condition, classes)))
    except Exception as wrong:
        return None, str(wrong).strip().splitlines()[0][:200] if str(wrong).strip() else type(wrong).__name__
    return (
        (made, "")
        if made.ndim >= 2 and len(made) == _TRIAL
        else (None, f"it returned a tensor of shape {tuple(made.shape)} for {_TRIAL} latents")
    )


@contextlib.contextmanager
def isolated_no_grad() -> Iterator[None]:
    """No gradients, and the global random state put back: networks may draw noise of their own."""
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
    """The module's raw output. `how`: (condition, classes)."""
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
    """The samples among a module's outputs: the largest floating-point tensor, first found wins. LoadError if there is none."""
    found = [entry for entry in _tensors(output) if entry.is_floating_point()]
    if not found:
        raise LoadError(
            f"the network returned {type(output).__name__} without a tensor in it",
            "wrap it in a module that returns the samples",
        )
    return max(found, key=lambda entry: entry.numel())


def _tensors(made: Any) -> Iterator[Tensor]:
    if isinstance(made, Tensor):
        yield made
    elif isinstance(made, (list, tuple)):
        for entry in made:
            yield from _tensors(entry)
    elif isinstance(made, dict) or hasattr(made, "values"):
        for entry in made.values():
            yield from _tensors(entry)


def _dims(module: nn.Module, config: AuditConfig) -> list[tuple[int, str]]:
    if config.latent_dim is not None:
        return [(config.latent_dim, "flag")]
    found = [
        (value, f"attribute {name}")
        for name in _NAMES
        if isinstance(value := getattr(module, name, None), int) and value > 0
    ]
    width = _first_width(module)
    if width:
        less = [(width - config.classes, "shapes")] if config.classes and width > config.classes else []
        found += less + [(width, "shapes")] if config.condition == "concat" else [(width, "shapes")] + less
    found += _embedded(module, width)
    if not found:
        raise LoadError(
            f"the latent size of {type(module).__name__} cannot be told from its weights", "give it: --latent-dim N"
        )
    return list(dict.fromkeys(found))


def _first_width(module: nn.Module) -> int | None:
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.ConvTranspose2d)):
            return int(part.in_features if isinstance(part, nn.Linear) else part.in_channels)
    first = next((entry for entry in module.parameters() if entry.ndim in (2, 4)), None)
    return None if first is None else int(first.shape[1] if first.ndim == 2 else first.shape[0])


def _embedded(module: nn.Module, width: int | None) -> list[tuple[int, str]]:
    sizes = [part.embedding_dim for part in module.modules() if isinstance(part, nn.Embedding)]
    return [(width - size, "shapes") for size in sizes if width and width > size]


def _conditions(module: nn.Module, config: AuditConfig) -> list[LabelEncoding | None]:
    if config.condition is not None:
        return [config.condition]  # type: ignore[list-item]
    return [None] if config.classes is None else ["index", "onehot", "concat"]


def _uncallable(module: nn.Module, config: AuditConfig, complaint: str) -> LoadError:
    name = type(module).__name__
    classes = next((part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)), None)
    if config.classes is None and (_arguments(module) > 1 or classes):
        count = f" ({classes} of them, by its embedding)" if classes else ""
        return LoadError(
            f"{name} needs a class label{count}: {complaint}",
            f"--classes {classes or 'N'} --condition index, or onehot, or concat",
        )
    return LoadError(
        f"{name} cannot be called with latents: {complaint}", "check --latent-dim, --classes and --condition"
    )


def _arguments(module: nn.Module) -> int:
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(
        entry.default is entry.empty and entry.kind in (entry.POSITIONAL_ONLY, entry.POSITIONAL_OR_KEYWORD)
        for entry in parameters
    )


def _adapted(
    made: Tensor, latent: tuple[LatentSpec, str], condition: LabelEncoding | None, about: tuple[nn.Module, AuditConfig]
) -> CallSignature:
    module, config = about
    z, source = latent
    output, said = _output(made, module, config)
    assumed = [
        Assumption("latent size (--latent-dim)", f"{z.dim}, passed as (B, {', '.join(map(str, z.shape))})", source),
        Assumption("latent prior (--prior)", z.prior, "flag" if config.prior else "default"),
        *said,
    ]
    if condition is not None:
        given = "flag" if config.condition else "default"
        assumed.append(
            Assumption("how the class is passed (--condition)", f"{condition}, {config.classes} classes", given)
        )
    return CallSignature(z, output, config.classes if condition else None, condition, tuple(assumed))


def _output(made: Tensor, module: nn.Module, config: AuditConfig) -> tuple[OutputSpec, list[Assumption]]:
    shape, said = _shape(made, config)
    kind = {3: "image", 2: "series"}.get(len(shape), "vector")
    if config.output_range is not None:
        bounds, value, source = config.output_range, "declared", "flag"
        return OutputSpec(kind, shape, (bounds[0], bounds[1])), [
            *said,
            Assumption("output range (--output-range)", f"[{bounds[0]:g}, {bounds[1]:g}]", source),
        ]  # type: ignore[arg-type]
    last = [part for part in module.modules() if not list(part.children())][-1:]
    by_module = (
        (-1.0, 1.0)
        if last and isinstance(last[0], nn.Tanh)
        else (0.0, 1.0)
        if last and isinstance(last[0], nn.Sigmoid)
        else None
    )
    if kind != "image":
        return OutputSpec(kind, shape, by_module), said  # type: ignore[arg-type]
    low, high = float(made.min()), float(made.max())
    bounds, source = (
        (by_module, "module") if by_module else ((0.0, 1.0) if low >= 0 and high <= 1 else (-1.0, 1.0), "default")
    )
    value = f"[{bounds[0]:g}, {bounds[1]:g}]; a few outputs span [{low:.3g}, {high:.3g}]"
    return OutputSpec("image", shape, (bounds[0], bounds[1])), [
        *said,
        Assumption("output range (--output-range)", value, source),
    ]


def _shape(made: Tensor, config: AuditConfig) -> tuple[tuple[int, ...], list[Assumption]]:
    shape = tuple(made.shape[1:])
    if len(shape) > 3:
        raise LoadError(
            f"the network returns samples of shape {shape}",
            "gandiag takes images (C, H, W), series (C, T) and vectors (D,)",
        )
    if len(shape) != 1:
        return shape, []
    size = shape[0]
    if config.image_size:
        channels, rest = divmod(size, config.image_size**2)
        if rest or not channels:
            raise LoadError(
                f"--image-size {config.image_size} contradicts the network: it returns {size} values",
                "remove --image-size",
            )
        return (channels, config.image_size, config.image_size), []
    flat = FLAT_IMAGE_SHAPES.get(size)
    if flat is None:
        return shape, []
    return flat, [
        Assumption(
            "image shape (--image-size, --channels)",
            f"{size} outputs are read as {flat[0]}x{flat[1]}x{flat[2]}",
            "default",
        )
    ]
