"""BigGAN and BigGAN-deep in the layout of ajbrock/BigGAN-PyTorch: G.pth, G_ema.pth.

Brock et al. 2019, appendix B, and the networks that the same code trains without the shared embedding (SNGAN, SAGAN).
Spectral norm is weight, u0, sv0: W / |Wv| with v = W'u/|W'u| (one step of the power iteration, as in its eval mode). Batch norm
is stored_mean, stored_var; where standing statistics were accumulated they are sums, and accumulation_counter says of how many.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

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
from gandiag.interfaces import Assumption, LatentSpec

_HOW: Mapping[ConditioningKind, str] = {
    "shared": "as an index into one shared embedding",
    "own": "as an index into an embedding of every norm's own",
}


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are linear, [shared,] blocks.i.j.*, output_layer.0 and .2, and the shapes follow each other."""
    if not all(name in weights.tensors for name in ("linear.weight", "output_layer.0.gain", "output_layer.2.weight")):
        raise ArchitectureMismatch("")
    tensors, facts = convert_state_dict(weights.tensors)
    deep, blocks = "steps.0.conv4.weight" in tensors, sum(name.endswith(".conv1.weight") for name in tensors)
    family = "BigGAN-deep (ajbrock)" if deep else "BigGAN (ajbrock)"
    told, classes, dim, chunk = _inputs(tensors, deep, blocks)
    every = _every(blocks, config.image_size) if deep else 1
    _, final, _ = resolve_output_activation(config.output_range, (), family)
    eps = 1e-5 if config.bn_eps is None else config.bn_eps
    doubled = frozenset(range(every - 1, blocks, every))
    design = BlockConfig(told, chunk, deep and told == "shared", doubled, eps, 1e-5, config.activation or "relu", final)
    with torch.device("meta"):
        net = ResidualGenerator(tensors, design, classes)
    output, _, said = resolve_output_activation(config.output_range, infer_image_shape(net, dim), family)
    load_strict(net, tensors)
    assumed = (
        Assumption("latent size (--latent-dim)", _split(dim, chunk, blocks, deep), "shapes"),
        Assumption("latent prior (--prior)", config.prior or "normal", _source(config.prior, family)),
        Assumption("classes (--classes)", f"{classes}, {_HOW[told]}", "shapes"),
        Assumption(
            "upsampling (--image-size)",
            f"nearest neighbours, in every {'block' if every == 1 else f'{every}th block'}: to {output.shape[1]} pixels",
            "shapes" if every == 1 else _source(config.image_size, family),
        ),
        Assumption("hidden activation (--activation)", design.activation, _source(config.activation, family)),
        Assumption(
            "batch-norm eps (--bn-eps)",
            f"{eps:g} (1e-05 in the last, whatever the training said)",
            _source(config.bn_eps, family),
        ),
        Assumption(
            "batch norm (--bn)",
            f"{config.bn}; that code samples with the batch's own statistics unless told --G_eval_mode",
            _source(None, family),
        ),
        *facts,
        said,
    )
    return RebuiltGenerator(family, net, LatentSpec(dim, config.prior or "normal"), output, classes, "index", assumed)  # type: ignore[arg-type]


def _source(flag: object, family: str) -> str:
    return f"family ({family.split(' (')[0]})" if flag is None else "flag"


def _split(dim: int, chunk: int, blocks: int, deep: bool) -> str:
    if deep:
        return f"{dim}, all of it beside the class to every block"
    return (
        f"{dim}, in pieces of {chunk}: one for the first map, one for each of {blocks} blocks"
        if chunk
        else f"{dim}, all of it to the first map"
    )


def _inputs(tensors: Mapping[str, Tensor], deep: bool, blocks: int) -> tuple[ConditioningKind, int, int, int]:
    """How norms learn of the class, how many classes, the latent size and its pieces. NotThis where the numbers contradict each other."""
    gain, given = require_shape(tensors, "steps.0.bn1.gain.weight", 2), require_shape(tensors, "linear.weight", 2)[1]
    if "shared.weight" not in tensors:
        return "own", gain[0], given, 0
    classes, embedded = require_shape(tensors, "shared.weight", 2)
    rest = gain[1] - embedded
    if deep:
        if rest < 1 or given != gain[1]:
            raise ArchitectureMismatch(
                f"its first map takes {given} numbers, and its norms {gain[1]}, of which the class is {embedded}"
            )
        return "shared", classes, rest, 0
    if rest < 0 or rest not in (0, given):
        raise ArchitectureMismatch(
            f"its norms take {gain[1]} numbers, of which the class is {embedded} and a piece of z {given}"
        )
    return "shared", classes, given * (blocks + 1) if rest else given, rest


def _every(blocks: int, side: int | None) -> int:
    """BigGAN-deep doubles in the last block of a stage; a stage has two unless the image's size says otherwise."""
    if side is None:
        return 2
    for every in range(1, blocks + 1):
        if blocks % every == 0 and 4 * 2 ** (blocks // every) == side:
            return every
    raise LoadError(f"--image-size {side} contradicts {blocks} blocks that start at 4 pixels", "remove --image-size")


# its names and ours


def convert_state_dict(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[Assumption, ...]]:
    """The tensors under the names of `blocks.py`, without spectral norm, and what the statistics are."""
    plain = {name: entry for name, entry in tensors.items() if not re.search(r"\.(u|sv)\d+$", name)}
    for name in tensors:
        if name.endswith(".u0") and f"{name[:-3]}.weight" in plain:
            plain[f"{name[:-3]}.weight"] = _normed(plain[f"{name[:-3]}.weight"], tensors[name], name)
    order = sorted(
        {(int(found[1]), int(found[2])) for name in plain if (found := re.match(r"blocks\.(\d+)\.(\d+)\.", name))}
    )
    heads = {f"blocks.{row}.{column}": f"steps.{place}" for place, (row, column) in enumerate(order)}
    heads |= {"output_layer.0": "norm", "output_layer.2": "conv"}
    named = {_renamed(name, heads): entry for name, entry in plain.items()}
    return _statistics(named)


def _renamed(name: str, heads: Mapping[str, str]) -> str:
    found = re.match(r"blocks\.\d+\.\d+|output_layer\.[02]", name)
    name = heads[found[0]] + name[found.end() :] if found else name
    return re.sub(r"(\.bn)?\.stored_(mean|var)$", r".bn.running_\2", name)


def _normed(weight: Tensor, u: Tensor, name: str) -> Tensor:
    """W / sigma, sigma by one step from the stored left singular vector u (1, outputs)."""
    if weight.ndim < 2 or u.shape != (1, weight.shape[0]) or u.dtype != weight.dtype:
        raise ArchitectureMismatch(
            f"{name} is {u.dtype} of shape {tuple(u.shape)}, which is no left singular vector of a weight {tuple(weight.shape)}"
        )
    matrix = weight.flatten(1)
    right = torch.nn.functional.normalize(u[0] @ matrix, dim=0, eps=1e-12)
    made: Tensor = weight / torch.linalg.vector_norm(matrix @ right)
    return made


def _statistics(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[Assumption, ...]]:
    """Sums of standing statistics as means. NotThis for norms that keep none: group norm, or no norm at all."""
    norms = [
        name.removesuffix(".gain.weight").removesuffix(".gain")
        for name in tensors
        if name.endswith((".gain.weight", ".gain"))
    ]
    silent = [
        name for name in norms if f"{name}.bn.running_mean" not in tensors or f"{name}.bn.running_var" not in tensors
    ]
    if silent:
        raise ArchitectureMismatch(
            f"{silent[0]} keeps no statistics: it was trained with --norm_style gn or nonorm, which is not rebuilt"
        )
    facts: list[Assumption] = []
    counters = {name: entry for name, entry in tensors.items() if name.endswith(".accumulation_counter")}
    odd = next(
        (
            name
            for name, entry in counters.items()
            if entry.numel() != 1
            or name.replace("accumulation_counter", "running_mean") not in tensors
            or name.replace("accumulation_counter", "running_var") not in tensors
        ),
        None,
    )
    if odd is not None:
        raise ArchitectureMismatch(f"{odd} is {tuple(counters[odd].shape)}, and counts no statistics beside it")
    counts = {float(entry) for entry in counters.values()}
    for name, entry in counters.items():
        for part in ("running_mean", "running_var"):
            key = name.replace("accumulation_counter", part)
            tensors[key] = tensors[key] / entry if float(entry) > 0 else tensors[key]
    if any(counts):
        facts.append(
            Assumption(
                "batch-norm statistics",
                f"standing ones, sums of {max(counts):g} batches, divided by that",
                "file (accumulation_counter)",
            )
        )
    elif any(re.search(r"\.bn\.num_batches_tracked$", name) for name in tensors):
        facts.append(
            Assumption(
                "batch-norm gain",
                "multiplies, as in training on several devices; that code's own eval mode adds it (a known slip)",
                "family (cross-replica batch norm)",
            )
        )
    return add_batch_counters({name: entry for name, entry in tensors.items() if name not in counters}), tuple(facts)
