"""Catches shape errors with a dry run on the meta device before sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.module_adapter import call_generator, extract_samples
from gandiag.errors import LoadError
from gandiag.interfaces import LabelEncoding, LatentSpec, OutputSpec

_FORWARD_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, AttributeError, LoadError)


def infer_output_shape(net: nn.Module, *inputs: Tensor | None) -> tuple[int, ...]:
    """The shape of one sample of `net` for these inputs, all on the meta device.

    ArchitectureMismatch where its layers do not fit.
    """
    with _named_shape_errors(net), torch.no_grad():
        return tuple(net.eval()(*inputs).shape[1:])


def check_output_shape(
    net: nn.Module, latent_dim: int, output_shape: tuple[int, ...], n_classes: int | None = None
) -> None:
    """ArchitectureMismatch unless `net` outputs samples of `output_shape`.

    Inputs: z (B, latent_dim), and one-hot labels (B, n_classes) where it takes them.
    """
    if min(latent_dim, n_classes or 1) < 1:
        classes = f" and {n_classes} classes" if n_classes is not None else ""
        raise ArchitectureMismatch(f"it would take latents of size {latent_dim}{classes}")
    inputs = (torch.empty(2, size, device="meta") for size in (latent_dim, n_classes) if size is not None)
    shape = infer_output_shape(net, *inputs)
    if shape != output_shape:
        raise ArchitectureMismatch(f"it would output samples of {shape}, not {output_shape}")


def verify_forward(
    net: nn.Module, latent: LatentSpec, output: OutputSpec, conditioning: tuple[LabelEncoding | None, int | None]
) -> None:
    """ArchitectureMismatch, naming the first layer that does not fit, unless `net` outputs samples as declared.

    `conditioning`: (condition, classes). Parameters and buffers are replaced by meta tensors for the run; a network
    that cannot run so (it keeps numbers where torch does not see them) outputs one real batch. Embeddings, which a meta
    run does not look up, must have a row for every class.
    """
    classes = conditioning[1] or 0
    for name, part in net.named_modules():
        if isinstance(part, nn.Embedding) and part.num_embeddings < classes:
            raise ArchitectureMismatch(f"{name}.weight has {part.num_embeddings} rows for {classes} classes")
    meta_tensors: dict[str, Tensor] = {
        name: nn.Parameter(entry.to("meta"), requires_grad=False) for name, entry in net.named_parameters()
    }
    meta_tensors |= {name: entry.to("meta") for name, entry in net.named_buffers()}
    try:
        shape = _run_forward(net, lambda *args: functional_call(net, meta_tensors, args), latent, conditioning, "meta")
    except ArchitectureMismatch:
        shape = _run_forward(net, net, latent, conditioning, "cpu")
    if math.prod(shape) != math.prod(output.shape):
        raise ArchitectureMismatch(f"it would output samples of {shape}, not {output.shape}")


def _run_forward(
    net: nn.Module,
    forward: Callable[..., Any],
    latent: LatentSpec,
    conditioning: tuple[LabelEncoding | None, int | None],
    device: str,
) -> tuple[int, ...]:
    """The shape of one sample, by a run with two zero latents."""
    if min(latent.shape) < 1:
        raise ArchitectureMismatch(f"it would take latents of shape {latent.shape}")
    z = torch.zeros(2, *latent.shape, device=device)
    labels = None if conditioning[0] is None else torch.zeros(2, dtype=torch.int64, device=device)
    with _named_shape_errors(net), torch.no_grad():
        return tuple(extract_samples(call_generator(forward, z, labels, conditioning)).shape[1:])  # type: ignore[arg-type]


@contextmanager
def _named_shape_errors(net: nn.Module) -> Iterator[None]:
    """Turns errors of a forward pass into an ArchitectureMismatch that names the failed layer's weight and input."""
    entered: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def make_enter_hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda part, inputs: entered.append(
            (name, part, next((tuple(entry.shape) for entry in inputs if isinstance(entry, Tensor)), ()))
        )

    def leave(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        entered.pop()

    hooks = [
        hook
        for name, part in net.named_modules()
        for hook in (part.register_forward_pre_hook(make_enter_hook(name)), part.register_forward_hook(leave))
    ]
    try:
        yield
    except _FORWARD_ERRORS as error:
        reason = (_describe_failure(*entered[-1]) if entered else "") or _first_line(error)
        raise ArchitectureMismatch(f"its layers do not fit together: {reason}") from None
    finally:
        for hook in hooks:
            hook.remove()


def _describe_failure(name: str, part: nn.Module, input_shape: tuple[int, ...]) -> str:
    """The weight of the layer that failed and its input; empty where the layer has none."""
    weights = [(leaf, entry) for leaf, entry in part.named_parameters() if entry.ndim >= 2]
    if not name or not weights:
        return ""
    leaf, weight = weights[0]
    return f"{name}.{leaf} is {tuple(weight.shape)}, and its input is {input_shape[1:]} per sample"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
