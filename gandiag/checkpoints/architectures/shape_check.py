"""A network whose layers do not follow each other is found out before it is sampled: a run on the meta device, without numbers."""

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

_WRONG = (RuntimeError, ValueError, IndexError, TypeError, AttributeError, LoadError)


def infer_output_shape(net: nn.Module, *inputs: Tensor | None) -> tuple[int, ...]:
    """The shape of one sample that `net` makes of these inputs, all on the meta device. NotThis where its layers do not follow each other."""
    with _watched(net) as where, torch.no_grad():
        try:
            return tuple(net.eval()(*inputs).shape[1:])
        except _WRONG as wrong:
            raise ArchitectureMismatch(
                f"its layers do not follow each other: {where() or _first_line(wrong)}"
            ) from None


def check_output_shape(
    net: nn.Module, latent_dim: int, output_shape: tuple[int, ...], n_classes: int | None = None
) -> None:
    """NotThis unless `net` makes samples of `shape` from z (B, latent), and one-hot labels (B, onehot) where it takes them."""
    if min(latent_dim, n_classes or 1) < 1:
        raise ArchitectureMismatch(
            f"it would take latents of size {latent_dim}"
            + (f" and {n_classes} classes" if n_classes is not None else "")
        )
    made = infer_output_shape(
        net, *(torch.empty(2, size, device="meta") for size in (latent_dim, n_classes) if size is not None)
    )
    if made != output_shape:
        raise ArchitectureMismatch(f"it would make samples of {made}, not {output_shape}")


def verify_forward(
    net: nn.Module, latent: LatentSpec, output: OutputSpec, conditioning: tuple[LabelEncoding | None, int | None]
) -> None:
    """NotThis, with the first layer that does not fit, unless a finished network makes samples of `output`. `how`: (condition, classes).

    Its tensors are replaced by some without numbers for the time being; a network that cannot be run so (it keeps numbers where
    torch does not see them) makes one sample in earnest. Embeddings, which a run without numbers does not look up, have a row for every class.
    """
    short = next(
        (
            name
            for name, part in net.named_modules()
            if isinstance(part, nn.Embedding) and part.num_embeddings < (conditioning[1] or 0)
        ),
        None,
    )
    if short is not None:
        raise ArchitectureMismatch(
            f"{short}.weight has {net.get_submodule(short).num_embeddings} rows for {conditioning[1]} classes"
        )
    stand_ins: dict[str, Tensor] = {
        name: nn.Parameter(entry.to("meta"), requires_grad=False) for name, entry in net.named_parameters()
    }
    stand_ins |= {name: entry.to("meta") for name, entry in net.named_buffers()}
    try:
        made = _shape(net, lambda *given: functional_call(net, stand_ins, given), latent, conditioning, "meta")
    except ArchitectureMismatch:
        made = _shape(net, net, latent, conditioning, "cpu")
    if math.prod(made) != math.prod(output.shape):
        raise ArchitectureMismatch(f"it would make samples of {made}, not {output.shape}")


def _shape(
    net: nn.Module,
    run: Callable[..., Any],
    latent: LatentSpec,
    how: tuple[LabelEncoding | None, int | None],
    device: str,
) -> tuple[int, ...]:
    if min(latent.shape) < 1:
        raise ArchitectureMismatch(f"it would take latents of shape {latent.shape}")
    z = torch.zeros(2, *latent.shape, device=device)
    labels = None if how[0] is None else torch.zeros(2, dtype=torch.int64, device=device)
    with _watched(net) as where, torch.no_grad():
        try:
            return tuple(extract_samples(call_generator(run, z, labels, how)).shape[1:])  # type: ignore[arg-type]
        except _WRONG as wrong:
            raise ArchitectureMismatch(
                f"its layers do not follow each other: {where() or _first_line(wrong)}"
            ) from None


@contextmanager
def _watched(net: nn.Module) -> Iterator[Callable[[], str]]:
    """Inside, the function that says which layer was entered and not left: its weight, and what it was given."""
    entered: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def enter(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda part, given: entered.append(
            (name, part, next((tuple(entry.shape) for entry in given if isinstance(entry, Tensor)), ()))
        )

    def leave(part: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        entered.pop()

    hooks = [
        hook
        for name, part in net.named_modules()
        for hook in (part.register_forward_pre_hook(enter(name)), part.register_forward_hook(leave))
    ]
    try:
        yield lambda: _told(*entered[-1]) if entered else ""
    finally:
        for hook in hooks:
            hook.remove()


def _told(name: str, part: nn.Module, given: tuple[int, ...]) -> str:
    own = [(leaf, entry) for leaf, entry in part.named_parameters() if entry.ndim >= 2]
    if not name or not own:
        return ""
    leaf, weight = own[0]
    return f"{name}.{leaf} is {tuple(weight.shape)}, and is given {given[1:]} a sample"


def _first_line(wrong: Exception) -> str:
    return (str(wrong).strip().splitlines() or [type(wrong).__name__])[0][:120]
