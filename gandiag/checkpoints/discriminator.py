"""Which discriminator belongs to a generator's file: in the same file, in the state of `gandiag train`, or in a file named alike.

    netG + netD in one training dict · generator.safetensors + state.pt · netG_epoch_24.pth + netD_epoch_24.pth · netG/… + netD/…

It is rebuilt from its weights, as the generator is; nothing in a file runs.
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
from gandiag.checkpoints.file_type import WEIGHT_SUFFIXES
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.key_names import clean_text, parse_role
from gandiag.checkpoints.readers import read_checkpoint
from gandiag.checkpoints.state_dict import Weights, cast_to_float32, find_discriminator_weights
from gandiag.checkpoints.trainer_state import find_state_file, read_saved_discriminator
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, OutputSpec

MARGIN_RATIO = 2.0  # how many times worse the runner-up must be
GOOD_MISMATCH = 0.15  # mismatch of batch norm's statistics below which a reading is right
MAX_MISMATCH = 0.5  # beyond it this is another network than the one that was trained

Choice = TypeVar("Choice", str, float)


@dataclass(frozen=True, slots=True)
class DiscriminatorCandidate:
    """The discriminator of a generator's file: `judge`, or the `reason` why it is not rebuilt. `where`: its place, as a reader would say it.

    `loss`: bce, relativistic or wasserstein; what the logits mean.
    """

    location: str
    spec: DiscriminatorSpec | None = None
    loss: str = "bce"
    assumptions: tuple[Assumption, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedDiscriminator:
    """A discriminator ready to judge: samples (B, *shape) to logits (B,), or (B / pack,) where it judges packs."""

    module: nn.Module
    assumptions: tuple[Assumption, ...]
    mismatch: float | None = None


def find_discriminator(path: str | os.PathLike[str], output: OutputSpec) -> DiscriminatorCandidate | None:
    """The discriminator that goes with the generator in `path`, whose samples are `output`; None where there is none.

    Cost: the headers of the files. What cannot be read counts as not there.
    """
    file = Path(path)
    try:
        return _inside(file, output) or _state(file, output) or _beside(file, output)
    except LoadError:
        return None
    except Exception as odd:  # a file's other half never stops the audit of the generator
        return DiscriminatorCandidate(
            "beside the generator", reason=clean_text(f"looking for it failed ({type(odd).__name__}: {odd})"[:160])
        )


def _inside(file: Path, output: OutputSpec) -> DiscriminatorCandidate | None:
    content = read_checkpoint(str(file), compute_hash=False)
    return _one_of(find_discriminator_weights(content.tree, keys_ordered=content.keys_ordered), output, "")


def _state(file: Path, output: OutputSpec) -> DiscriminatorCandidate | None:
    state = find_state_file(file)
    if state is None:
        return None
    try:
        judge, loss = read_saved_discriminator(file, output)
    except ArchitectureMismatch as wrong:
        return DiscriminatorCandidate(state.name, reason=str(wrong))
    return DiscriminatorCandidate(f"{state.name} of the same run", judge, loss, judge.assumptions)


def _beside(file: Path, output: OutputSpec) -> DiscriminatorCandidate | None:
    found = _partners(file)
    if len(found) != 1:
        return None
    content = read_checkpoint(str(found[0]), compute_hash=False)
    groups = find_discriminator_weights(content.tree, keys_ordered=content.keys_ordered, include_other=True)
    return _one_of(groups, output, found[0].name)


def _partners(file: Path) -> list[Path]:
    """Files that are called as this one is, but for the role: in the same folder, or in a folder that is called so beside this one's."""
    own, rest = parse_role(file.stem)
    folders = [file.parent]
    if parse_role(file.parent.name)[0] == "generator":
        apart = parse_role(file.parent.name)[1]
        folders = [
            entry
            for entry in file.absolute().parent.parent.iterdir()
            if entry.is_dir() and parse_role(entry.name) == ("discriminator", apart)
        ]
    elif own not in ("generator", "average"):
        return []
    files = (
        entry for folder in folders for entry in folder.iterdir() if entry.suffix in WEIGHT_SUFFIXES and entry.is_file()
    )
    return sorted(
        entry
        for entry in files
        if parse_role(entry.stem) == ("discriminator", rest) and "encoder" not in entry.stem.lower()
    )


def _one_of(groups: list[Weights], output: OutputSpec, beside: str) -> DiscriminatorCandidate | None:
    groups = [group for group in groups if "encoder" not in group.path.lower()]
    if not groups:
        return None
    where = clean_text(" of ".join(part for part in (groups[0].path, beside) if part)) or "the file"
    if len(groups) > 1:
        names = clean_text(", ".join(group.path for group in groups[:4]))
        return DiscriminatorCandidate(
            where,
            reason=f"there are {len(groups)} discriminators ({names}), and the file does not say which one judged this generator",
        )
    try:
        judge = rebuild_discriminator(cast_to_float32(groups[0], share_memory=True), output)
    except ArchitectureMismatch as wrong:
        return DiscriminatorCandidate(where, reason=clean_text(str(wrong)) or "it is no plain chain of layers")
    said = Assumption("D: loss", "cross-entropy of logits, as in the first GANs", "default")
    return DiscriminatorCandidate(where, judge, "bce", (*judge.assumptions, said))


def build_discriminator(candidate: DiscriminatorCandidate, real: Tensor, fake: Tensor) -> LoadedDiscriminator:
    """The discriminator with the slope and eps that its batch norm's statistics, or else custom, choose. real, fake: (B, *shape).

    NotThis where its statistics disagree with every reading, as those of a network do that was read wrongly.
    """
    judge = candidate.spec
    assert judge is not None
    pairs = [
        (slope, eps)
        for eps in (judge.eps_candidates if judge.has_batchnorm else judge.eps_candidates[:1])
        for slope in judge.activation_candidates
    ]
    slope, eps = pairs[0]
    mismatch, shown = None, (False, False)
    if judge.has_batchnorm:
        (slope, eps), mismatch, shown = _likeliest(judge, pairs, real, fake)
        if not mismatch < MAX_MISMATCH:
            raise ArchitectureMismatch(
                f"rebuilt, it disagrees with its own batch-norm statistics ({mismatch:.2g}; a right reading stays below {MAX_MISMATCH:g})"
            )
    return LoadedDiscriminator(
        build_sequential_discriminator(judge, slope, eps),
        (*candidate.assumptions, *_said(judge, (slope, eps), shown)),
        mismatch,
    )


def _likeliest(
    judge: DiscriminatorSpec, pairs: list[tuple[str, float]], real: Tensor, fake: Tensor
) -> tuple[tuple[str, float], float, tuple[bool, bool]]:
    """The slope and eps whose statistics fit best, with dropout as it may have been where without it none fits; and which of both they show.

    What they do not show, being about as good for another value, is the customary one.
    """
    table = {
        (pair, 0.0): discriminator_mismatch(build_sequential_discriminator(judge, *pair), real, fake) for pair in pairs
    }
    if judge.has_dropout and not min(table.values()) < GOOD_MISMATCH:
        table |= {
            (pair, share): discriminator_mismatch(build_sequential_discriminator(judge, *pair, share), real, fake)
            for pair in pairs
            for share in DROPOUT_CANDIDATES
        }
    best = {pair: min(value for (other, _), value in table.items() if other == pair) for pair in pairs}
    eps, eps_shown = _ranked(
        {size: min(value for (_, other), value in best.items() if other == size) for _, size in pairs}
    )
    slope, slope_shown = _ranked({name: best[name, eps] for name, other in pairs if other == eps})
    return (slope, eps), best[slope, eps], (slope_shown, eps_shown)


def _ranked(scores: dict[Choice, float]) -> tuple[Choice, bool]:
    """The best choice, and whether it is clearly so; else the first one, the customary."""
    customary, custom = next(iter(scores.items()))
    ranked = sorted(scores.items(), key=lambda row: row[1])
    best, least = ranked[0]
    clear = len(ranked) > 1 and ranked[1][1] >= MARGIN_RATIO * least
    return (best, clear) if clear or custom >= MARGIN_RATIO * least else (customary, False)


def _said(judge: DiscriminatorSpec, chosen: tuple[str, float], shown: tuple[bool, bool]) -> tuple[Assumption, ...]:
    slope, eps = ("batch-norm" if seen else "default" for seen in shown)
    found = [Assumption("D: hidden activation", chosen[0], slope)] if len(judge.activation_candidates) > 1 else []
    found += (
        [Assumption("D: batch-norm eps", f"{chosen[1]:g}", eps)]
        if judge.has_batchnorm and len(judge.eps_candidates) > 1
        else []
    )
    return tuple(found)
