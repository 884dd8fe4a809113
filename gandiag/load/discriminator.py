"""Which discriminator belongs to a generator's file: in the same file, in the state of `gandiag train`, or in a file named alike.

    netG + netD in one training dict · generator.safetensors + state.pt · netG_epoch_24.pth + netD_epoch_24.pth · netG/… + netD/…

It is rebuilt from its weights, as the generator is; nothing in a file runs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from gandiag.contracts import Assumption, Output
from gandiag.errors import LoadError
from gandiag.load.containers import WEIGHT_SUFFIXES
from gandiag.load.judged_moments import disagreement
from gandiag.load.names import printable, role
from gandiag.load.read import read
from gandiag.load.rebuild.judges import Judge, assemble, rebuild
from gandiag.load.rebuild.layers import NotThis
from gandiag.load.trainer_state import judge_of, state_file
from gandiag.load.weights import Weights, as_float, find_discriminators

TRUSTED_MISMATCH = 0.5  # of batch norm's statistics: beyond it this is another network than the one that was trained


@dataclass(frozen=True, slots=True)
class Opponent:
    """The discriminator of a generator's file: `judge`, or the `reason` why it is not rebuilt. `where`: its place, as a reader would say it.

    `loss`: bce, relativistic or wasserstein; what the logits mean.
    """

    where: str
    judge: Judge | None = None
    loss: str = "bce"
    assumptions: tuple[Assumption, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """A discriminator ready to judge: samples (B, *shape) to logits (B,), or (B / pack,) where it judges packs."""

    module: nn.Module
    assumptions: tuple[Assumption, ...]
    mismatch: float | None = None


def find_opponent(path: str | os.PathLike[str], output: Output) -> Opponent | None:
    """The discriminator that goes with the generator in `path`, whose samples are `output`; None where there is none.

    Cost: the headers of the files; weights are copied where it is rebuilt. What cannot be read counts as not there.
    """
    file = Path(path)
    try:
        return _inside(file, output) or _state(file, output) or _beside(file, output)
    except LoadError:
        return None


def _inside(file: Path, output: Output) -> Opponent | None:
    content = read(str(file), hashed=False)
    return _one_of(find_discriminators(content.tree, ordered=content.ordered), output, "")


def _state(file: Path, output: Output) -> Opponent | None:
    state = state_file(file)
    if state is None:
        return None
    try:
        judge, loss = judge_of(file, output)
    except NotThis as wrong:
        return Opponent(state.name, reason=str(wrong))
    return Opponent(f"{state.name} of the same run", judge, loss, judge.assumptions)


def _beside(file: Path, output: Output) -> Opponent | None:
    found = _partners(file)
    if len(found) != 1:
        return None
    content = read(str(found[0]), hashed=False)
    groups = find_discriminators(content.tree, ordered=content.ordered, unnamed=True)
    return _one_of(groups, output, found[0].name)


def _partners(file: Path) -> list[Path]:
    """Files that are called as this one is, but for the role: in the same folder, or in a folder that is called so beside this one's."""
    own, rest = role(file.stem)
    folders = [file.parent]
    if role(file.parent.name)[0] == "generator":
        apart = role(file.parent.name)[1]
        folders = [entry for entry in file.absolute().parent.parent.iterdir() if entry.is_dir() and role(entry.name) == ("discriminator", apart)]
    elif own not in ("generator", "average"):
        return []
    files = (entry for folder in folders for entry in folder.iterdir() if entry.suffix in WEIGHT_SUFFIXES and entry.is_file())
    return sorted(entry for entry in files if role(entry.stem) == ("discriminator", rest) and "encoder" not in entry.stem.lower())


def _one_of(groups: list[Weights], output: Output, beside: str) -> Opponent | None:
    groups = [group for group in groups if "encoder" not in group.path.lower()]
    if not groups:
        return None
    where = printable(" of ".join(part for part in (groups[0].path, beside) if part)) or "the file"
    if len(groups) > 1:
        names = printable(", ".join(group.path for group in groups[:4]))
        return Opponent(where, reason=f"there are {len(groups)} discriminators ({names}), and the file does not say which one judged this generator")
    try:
        judge = rebuild(as_float(groups[0]), output)
    except NotThis as wrong:
        return Opponent(where, reason=printable(str(wrong)) or "it is no plain chain of layers")
    said = Assumption("D: loss", "cross-entropy of logits, as in the first GANs", "default")
    return Opponent(where, judge, "bce", (*judge.assumptions, said))


def settle(opponent: Opponent, real: Tensor, fake: Tensor) -> Settled:
    """The discriminator with the slope and eps that its batch norm's statistics, or else custom, choose. real, fake: (B, *shape).

    NotThis where its statistics disagree with every reading, as those of a network do that was read wrongly.
    """
    judge = opponent.judge
    assert judge is not None
    pairs = [(slope, eps) for eps in (judge.epses if judge.normed else judge.epses[:1]) for slope in judge.activations]
    slope, eps = pairs[0]
    mismatch = None
    if judge.normed:
        table = {pair: disagreement(assemble(judge, *pair), real, fake) for pair in pairs}
        best = min(table, key=lambda pair: table[pair])
        mismatch = table[best]
        if not mismatch < TRUSTED_MISMATCH:
            raise NotThis(f"rebuilt, it disagrees with its own batch-norm statistics ({mismatch:.2g}; a right reading stays below {TRUSTED_MISMATCH:g})")
        slope, eps = best
    return Settled(assemble(judge, slope, eps), (*opponent.assumptions, *_said(judge, slope, eps, mismatch)), mismatch)


def _said(judge: Judge, slope: str, eps: float, mismatch: float | None) -> tuple[Assumption, ...]:
    source = "default" if mismatch is None else "batch-norm"
    found = [Assumption("D: hidden activation", slope, source)] if len(judge.activations) > 1 else []
    found += [Assumption("D: batch-norm eps", f"{eps:g}", source)] if judge.normed and len(judge.epses) > 1 else []
    return tuple(found)
