"""Finds and rebuilds the discriminator that belongs to a generator's file.

It may be in the same file, in the state of `gandiag train`, or in a sibling file:

    netG + netD in one training dict
    generator.safetensors + state.pt
    netG_epoch_24.pth + netD_epoch_24.pth
    netG/… + netD/…

It is rebuilt from its weights like the generator; nothing in a file runs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from gandiag.checkpoints.architectures.discriminator import (
    DROPOUT_CANDIDATES,
    DiscriminatorSpec,
    build_sequential_discriminator,
    rebuild_discriminator,
)
from gandiag.checkpoints.batchnorm.discriminator_moments import discriminator_mismatch
from gandiag.checkpoints.batchnorm.thresholds import BAD_MISMATCH, DECISIVE_RATIO, GOOD_MISMATCH
from gandiag.checkpoints.file_type import WEIGHT_SUFFIXES
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.key_names import clean_text, parse_role
from gandiag.checkpoints.readers import read_checkpoint
from gandiag.checkpoints.state_dict import Weights, cast_to_float32, find_discriminator_weights
from gandiag.checkpoints.trainer_state import find_state_file, read_saved_discriminator
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, OutputSpec

Value = TypeVar("Value", str, float)


@dataclass(frozen=True, slots=True)
class DiscriminatorCandidate:
    """The discriminator of a generator's file: its `spec`, or the `reason` why it cannot be rebuilt.

    `location`: where it is, for the user. `loss`: bce, relativistic or wasserstein, which decides what the logits mean.
    """

    location: str
    spec: DiscriminatorSpec | None = None
    loss: str = "bce"
    assumptions: tuple[Assumption, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedDiscriminator:
    """A discriminator in eval mode: samples (B, *shape) to logits (B,), or (B / pack_size,) if it takes packs."""

    module: nn.Module
    assumptions: tuple[Assumption, ...]
    mismatch: float | None = None


def find_discriminator(path: str | os.PathLike[str], output: OutputSpec) -> DiscriminatorCandidate | None:
    """The discriminator that belongs to the generator in `path`, whose samples are `output`; None if there is none.

    Unreadable files are ignored. Cost: the headers of the files.
    """
    file = Path(path)
    try:
        return _find_inside(file, output) or _find_trainer_state(file, output) or _find_sibling(file, output)
    except LoadError:
        return None
    except Exception as error:  # an unusual discriminator must not stop the audit of the generator
        return DiscriminatorCandidate(
            "beside the generator", reason=clean_text(f"looking for it failed ({type(error).__name__}: {error})"[:160])
        )


def _find_inside(file: Path, output: OutputSpec) -> DiscriminatorCandidate | None:
    contents = read_checkpoint(str(file), compute_hash=False)
    return _rebuild_one(find_discriminator_weights(contents.tree, keys_ordered=contents.keys_ordered), output, "")


def _find_trainer_state(file: Path, output: OutputSpec) -> DiscriminatorCandidate | None:
    state = find_state_file(file)
    if state is None:
        return None
    try:
        spec, loss = read_saved_discriminator(file, output)
    except ArchitectureMismatch as mismatch:
        return DiscriminatorCandidate(state.name, reason=str(mismatch))
    return DiscriminatorCandidate(f"{state.name} of the same run", spec, loss, spec.assumptions)


def _find_sibling(file: Path, output: OutputSpec) -> DiscriminatorCandidate | None:
    siblings = _list_siblings(file)
    if len(siblings) != 1:
        return None
    contents = read_checkpoint(str(siblings[0]), compute_hash=False)
    groups = find_discriminator_weights(contents.tree, keys_ordered=contents.keys_ordered, include_other=True)
    return _rebuild_one(groups, output, siblings[0].name)


def _list_siblings(file: Path) -> list[Path]:
    """Files named like this one except for the role: in the same folder, or in the sibling folder of discriminators."""
    role, rest = parse_role(file.stem)
    folders = [file.parent]
    folder_role, folder_rest = parse_role(file.parent.name)
    if folder_role == "generator":
        folders = [
            entry
            for entry in file.absolute().parent.parent.iterdir()
            if entry.is_dir() and parse_role(entry.name) == ("discriminator", folder_rest)
        ]
    elif role not in ("generator", "average"):
        return []
    files = (
        entry for folder in folders for entry in folder.iterdir() if entry.suffix in WEIGHT_SUFFIXES and entry.is_file()
    )
    return sorted(
        entry
        for entry in files
        if parse_role(entry.stem) == ("discriminator", rest) and "encoder" not in entry.stem.lower()
    )


def _rebuild_one(groups: list[Weights], output: OutputSpec, file_name: str) -> DiscriminatorCandidate | None:
    groups = [group for group in groups if "encoder" not in group.path.lower()]
    if not groups:
        return None
    location = clean_text(" of ".join(part for part in (groups[0].path, file_name) if part)) or "the file"
    if len(groups) > 1:
        names = clean_text(", ".join(group.path for group in groups[:4]))
        reason = (
            f"the file has {len(groups)} discriminators ({names}) and does not say which one trained this generator"
        )
        return DiscriminatorCandidate(location, reason=reason)
    try:
        spec = rebuild_discriminator(cast_to_float32(groups[0], share_memory=True), output)
    except ArchitectureMismatch as mismatch:
        return DiscriminatorCandidate(location, reason=clean_text(str(mismatch)) or "its layers are not sequential")
    loss = Assumption("discriminator.loss", "bce", "default", note="cross-entropy of logits, as in the original GAN")
    return DiscriminatorCandidate(location, spec, "bce", (*spec.assumptions, loss))


# what the weights leave open


def build_discriminator(candidate: DiscriminatorCandidate, real: Tensor, fake: Tensor) -> LoadedDiscriminator:
    """Build the discriminator with the activation and eps that BatchNorm statistics favor, else the defaults.

    real, fake: (B, *shape). ArchitectureMismatch if the statistics contradict every choice: the rebuild is wrong.
    """
    spec = candidate.spec
    assert spec is not None
    eps_candidates = spec.eps_candidates if spec.has_batchnorm else spec.eps_candidates[:1]
    pairs = [(activation, eps) for eps in eps_candidates for activation in spec.activation_candidates]
    activation, eps = pairs[0]
    mismatch, settled = None, (False, False)
    if spec.has_batchnorm:
        (activation, eps), mismatch, settled = _choose_settings(spec, pairs, real, fake)
        if not mismatch < BAD_MISMATCH:
            raise ArchitectureMismatch(
                f"rebuilt, it disagrees with its own BatchNorm statistics (mismatch {mismatch:.2g}; a correct rebuild "
                f"stays below {BAD_MISMATCH:g})"
            )
    return LoadedDiscriminator(
        build_sequential_discriminator(spec, activation, eps),
        (*candidate.assumptions, *_describe_choices(spec, activation, eps, settled)),
        mismatch,
    )


def _choose_settings(
    spec: DiscriminatorSpec, pairs: list[tuple[str, float]], real: Tensor, fake: Tensor
) -> tuple[tuple[str, float], float, tuple[bool, bool]]:
    """The best-fitting (activation, eps), its mismatch, and which of the two the statistics settle.

    If nothing fits well, training-time dropout is tried too. A setting that is not settled keeps its default.
    """

    def measure(pair: tuple[str, float], dropout: float = 0.0) -> float:
        return discriminator_mismatch(build_sequential_discriminator(spec, *pair, dropout), real, fake)

    scores = {(pair, 0.0): measure(pair) for pair in pairs}
    if spec.has_dropout and not min(scores.values()) < GOOD_MISMATCH:
        scores |= {(pair, dropout): measure(pair, dropout) for pair in pairs for dropout in DROPOUT_CANDIDATES}
    best = {pair: min(score for (other, _), score in scores.items() if other == pair) for pair in pairs}
    by_eps = {eps: min(score for (_, other), score in best.items() if other == eps) for _, eps in pairs}
    eps, eps_settled = _choose_value(by_eps)
    activation, activation_settled = _choose_value({name: best[name, eps] for name, other in pairs if other == eps})
    return (activation, eps), best[activation, eps], (activation_settled, eps_settled)


def _choose_value(scores: dict[Value, float]) -> tuple[Value, bool]:
    """The value with the smallest mismatch, and whether it clearly fits best; else the default, which comes first."""
    default, default_score = next(iter(scores.items()))
    ranked = sorted(scores.items(), key=lambda row: row[1])
    best, best_score = ranked[0]
    settled = len(ranked) > 1 and ranked[1][1] >= DECISIVE_RATIO * best_score
    if settled or default_score >= DECISIVE_RATIO * best_score:
        return best, settled
    return default, False


def _describe_choices(
    spec: DiscriminatorSpec, activation: str, eps: float, settled: tuple[bool, bool]
) -> tuple[Assumption, ...]:
    activation_source, eps_source = ("batch-norm" if known else "default" for known in settled)
    assumptions = []
    if len(spec.activation_candidates) > 1:
        assumptions.append(Assumption("discriminator.activation", activation, activation_source))
    if spec.has_batchnorm and len(spec.eps_candidates) > 1:
        assumptions.append(Assumption("discriminator.bn_eps", eps, eps_source))
    return tuple(assumptions)
