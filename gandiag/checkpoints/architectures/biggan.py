"""BigGAN and BigGAN-deep in the layout of ajbrock/BigGAN-PyTorch: G.pth, G_ema.pth.

Brock et al. 2019, appendix B, and the networks that the same code trains without the shared embedding (SNGAN, SAGAN).
Spectral norm is stored as weight, u0, sv0: W / |Wv| with v = W'u/|W'u| (one step of the power iteration, as in its eval
mode). BatchNorm statistics are stored_mean, stored_var; accumulated standing statistics are sums, and
accumulation_counter holds the number of batches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gandiag.checkpoints.architectures.assumptions import assume_latent, resolve_setting
from gandiag.checkpoints.architectures.base import (
    RebuiltGenerator,
    load_strict,
    require_shape,
    resolve_output_activation,
)
from gandiag.checkpoints.architectures.layers.residual_blocks import (
    BlockConfig,
    ConditioningKind,
    ResidualGenerator,
    add_batch_counters,
    infer_image_shape,
)
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

_CLASS_NOTES: Mapping[ConditioningKind, str] = {
    "shared": "as an index into one shared embedding",
    "own": "as an index into embeddings that each norm has of its own",
}


class _InputSplit(NamedTuple):
    """How z and the class reach the network.

    `chunk_size`: latents per chunk of a hierarchical z, 0 for an undivided one.
    """

    conditioning: ConditioningKind
    classes: int
    latent_dim: int
    chunk_size: int


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """The generator of ajbrock's BigGAN or BigGAN-deep.

    ArchitectureMismatch unless the keys are linear, [shared,] blocks.i.j.*, output_layer.0 and .2, and the shapes fit.
    """
    if not all(name in weights.tensors for name in ("linear.weight", "output_layer.0.gain", "output_layer.2.weight")):
        raise ArchitectureMismatch("")
    tensors, statistics_notes = convert_state_dict(weights.tensors)
    is_deep = "steps.0.conv4.weight" in tensors
    n_blocks = sum(name.endswith(".conv1.weight") for name in tensors)
    family = "BigGAN-deep (ajbrock)" if is_deep else "BigGAN (ajbrock)"
    inputs = _split_inputs(tensors, is_deep, n_blocks)
    step = _upsampling_step(n_blocks, config.image_size) if is_deep else 1
    block_config = BlockConfig(
        conditioning=inputs.conditioning,
        chunk_size=inputs.chunk_size,
        joint_conditioning=is_deep and inputs.conditioning == "shared",
        upsample_blocks=frozenset(range(step - 1, n_blocks, step)),
        eps=1e-5 if config.bn_eps is None else config.bn_eps,
        activation=config.activation or "relu",
        output_activation=resolve_output_activation(config.output_range, (), family)[1],
    )
    with torch.device("meta"):
        net = ResidualGenerator(tensors, block_config, inputs.classes)
    shape = infer_image_shape(net, inputs.latent_dim)
    output, _, output_assumption = resolve_output_activation(config.output_range, shape, family)
    load_strict(net, tensors)
    short_name = family.removesuffix(" (ajbrock)")
    latent, latent_assumptions = assume_latent(
        inputs.latent_dim, config.prior, short_name, dim_note=_describe_latent(inputs, n_blocks, is_deep)
    )
    assumptions = (
        *latent_assumptions,
        Assumption("classes", inputs.classes, "shapes", note=_CLASS_NOTES[inputs.conditioning]),
        *_state_block_settings(config, block_config, short_name, shape[1], is_deep),
        *statistics_notes,
        output_assumption,
    )
    return RebuiltGenerator(family, net, latent, output, inputs.classes, "index", assumptions)


def _state_block_settings(
    config: AuditConfig, blocks: BlockConfig, family: str, image_size: int, is_deep: bool
) -> tuple[Assumption, ...]:
    upsampling_note = f"by nearest neighbors, to {image_size} pixels"
    upsampled = tuple(sorted(blocks.upsample_blocks))
    if not is_deep:
        upsampling = Assumption("upsampling_blocks", upsampled, "shapes", note=upsampling_note)
    elif config.image_size is None:
        upsampling = Assumption("upsampling_blocks", upsampled, "family", family, note=upsampling_note)
    else:
        upsampling = Assumption("upsampling_blocks", upsampled, "flag", note=upsampling_note)
    return (
        upsampling,
        resolve_setting("activation", config.activation, blocks.activation, family),
        resolve_setting(
            "bn_eps", config.bn_eps, blocks.eps, family, "1e-05 in the last BatchNorm, whatever training used"
        ),
        Assumption(
            "bn",
            config.bn,
            "family",
            family,
            note="that code samples with batch statistics unless run with --G_eval_mode",
        ),
    )


def _describe_latent(inputs: _InputSplit, n_blocks: int, is_deep: bool) -> str:
    if is_deep:
        return "all of it conditions every block, beside the class"
    if inputs.chunk_size:
        return f"in chunks of {inputs.chunk_size}: one for the first layer, one for each of {n_blocks} blocks"
    return "all of it enters the first layer"


def _split_inputs(tensors: Mapping[str, Tensor], is_deep: bool, n_blocks: int) -> _InputSplit:
    """The split that the shapes show. ArchitectureMismatch if they contradict each other."""
    gain_shape = require_shape(tensors, "steps.0.bn1.gain.weight", 2)
    first_inputs = require_shape(tensors, "linear.weight", 2)[1]
    if "shared.weight" not in tensors:
        return _InputSplit("own", gain_shape[0], first_inputs, 0)
    classes, embedding_dim = require_shape(tensors, "shared.weight", 2)
    latents_per_norm = gain_shape[1] - embedding_dim
    if is_deep:
        if latents_per_norm < 1 or first_inputs != gain_shape[1]:
            raise ArchitectureMismatch(
                f"its first layer takes {first_inputs} values, and its norms take {gain_shape[1]}, "
                f"{embedding_dim} of them for the class"
            )
        return _InputSplit("shared", classes, latents_per_norm, 0)
    if latents_per_norm not in (0, first_inputs):
        raise ArchitectureMismatch(
            f"its norms take {gain_shape[1]} values, which are not the {embedding_dim} of the class alone "
            f"or with a chunk of z of {first_inputs}"
        )
    latent_dim = first_inputs * (n_blocks + 1) if latents_per_norm else first_inputs
    return _InputSplit("shared", classes, latent_dim, latents_per_norm)


def _upsampling_step(n_blocks: int, image_size: int | None) -> int:
    """Blocks per stage of BigGAN-deep, which upsamples in the last block of each: two, or as --image-size implies."""
    if image_size is None:
        return 2
    for step in range(1, n_blocks + 1):
        if n_blocks % step == 0 and 4 * 2 ** (n_blocks // step) == image_size:
            return step
    raise LoadError(
        f"--image-size {image_size} contradicts {n_blocks} blocks that start at 4 pixels", "remove --image-size"
    )


# conversion of the state dict


def convert_state_dict(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[Assumption, ...]]:
    """The tensors under the names of `residual_blocks.py`, without spectral norm; and assumptions about statistics."""
    plain = {name: tensor for name, tensor in tensors.items() if not re.search(r"\.(u|sv)\d+$", name)}
    for name in tensors:
        weight_name = f"{name.removesuffix('.u0')}.weight"
        if name.endswith(".u0") and weight_name in plain:
            plain[weight_name] = _apply_spectral_norm(plain[weight_name], tensors[name], name)
    positions = sorted(
        {(int(match[1]), int(match[2])) for name in plain if (match := re.match(r"blocks\.(\d+)\.(\d+)\.", name))}
    )
    prefixes = {f"blocks.{row}.{column}": f"steps.{step}" for step, (row, column) in enumerate(positions)}
    prefixes |= {"output_layer.0": "norm", "output_layer.2": "conv"}
    return _resolve_statistics({_rename_key(name, prefixes): tensor for name, tensor in plain.items()})


def _rename_key(name: str, prefixes: Mapping[str, str]) -> str:
    match = re.match(r"blocks\.\d+\.\d+|output_layer\.[02]", name)
    name = prefixes[match[0]] + name[match.end() :] if match else name
    return re.sub(r"(\.bn)?\.stored_(mean|var)$", r".bn.running_\2", name)


def _apply_spectral_norm(weight: Tensor, u: Tensor, name: str) -> Tensor:
    """W / sigma, with sigma by one step from the stored left singular vector u (1, outputs)."""
    if weight.ndim < 2 or u.shape != (1, weight.shape[0]) or u.dtype != weight.dtype:
        raise ArchitectureMismatch(
            f"{name}, {tuple(u.shape)} of {u.dtype}, is not a left singular vector of a weight {tuple(weight.shape)}"
        )
    matrix = weight.flatten(1)
    right = torch.nn.functional.normalize(u[0] @ matrix, dim=0, eps=1e-12)
    normalized: Tensor = weight / torch.linalg.vector_norm(matrix @ right)
    return normalized


def _resolve_statistics(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[Assumption, ...]]:
    """Turns sums of standing statistics into means. ArchitectureMismatch for norms without statistics."""
    _require_statistics(tensors)
    counters = {name: tensor for name, tensor in tensors.items() if name.endswith(".accumulation_counter")}
    for name, counter in counters.items():
        statistics = [name.replace("accumulation_counter", part) for part in ("running_mean", "running_var")]
        if counter.numel() != 1 or any(key not in tensors for key in statistics):
            raise ArchitectureMismatch(f"{name} is {tuple(counter.shape)}, and does not belong to stored statistics")
    for name, counter in counters.items():
        if float(counter) > 0:
            for part in ("running_mean", "running_var"):
                key = name.replace("accumulation_counter", part)
                tensors[key] = tensors[key] / counter
    counts = {float(counter) for counter in counters.values()}
    assumptions: tuple[Assumption, ...] = ()
    if any(counts):
        note = f"sums of {max(counts):g} batches, divided by that number"
        assumptions = (Assumption("batchnorm_statistics", "standing", "file", "accumulation_counter", note=note),)
    elif any(name.endswith(".bn.num_batches_tracked") for name in tensors):
        note = "as in training on several devices; that code's own eval mode adds it (a known bug)"
        assumptions = (Assumption("batchnorm_gain", "multiplied", "family", "cross-replica BatchNorm", note=note),)
    return add_batch_counters({name: tensor for name, tensor in tensors.items() if name not in counters}), assumptions


def _require_statistics(tensors: Mapping[str, Tensor]) -> None:
    norms = [
        name.removesuffix(".gain.weight").removesuffix(".gain")
        for name in tensors
        if name.endswith((".gain.weight", ".gain"))
    ]
    for norm in norms:
        if f"{norm}.bn.running_mean" not in tensors or f"{norm}.bn.running_var" not in tensors:
            raise ArchitectureMismatch(
                f"{norm} has no stored statistics: it was trained with --norm_style gn or nonorm, "
                "which gandiag does not rebuild"
            )
