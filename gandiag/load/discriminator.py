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

from gandiag.contracts import Assumption, Output
from gandiag.errors import LoadError
from gandiag.load.containers import WEIGHT_SUFFIXES
from gandiag.load.judged_moments import disagreement
from gandiag.load.names import printable, role
from gandiag.load.read import read
from gandiag.load.rebuild.judges import DROPPED, Judge, assemble, rebuild
from gandiag.load.rebuild.layers import NotThis
from gandiag.load.trainer_state import judge_of, state_file
from gandiag.load.weights import Weights, as_float, find_discriminators

CLEAR = 2.0  # how many times worse the runner-up must be
FITTING = 0.15  # mismatch of batch norm's statistics below which a reading is right
TRUSTED_MISMATCH = 0.5  # beyond it this is another network than the one that was trained

Choice = TypeVar("Choice", str, float)


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

    Cost: the headers of the files. What cannot be read counts as not there.
    """
    file = Path(path)
    try:
        return _inside(file, output) or _state(file, output) or _beside(file, output)
    except LoadError:
        return None
    except Exception as odd:  # a file's other half never stops the audit of the generator
        return Opponent("beside the generator", reason=printable(f"looking for it failed ({type(odd).__name__}: {odd})"[:160]))


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
        judge = rebuild(as_float(groups[0], borrow=True), output)
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
    mismatch, shown = None, (False, False)
    if judge.normed:
        (slope, eps), mismatch, shown = _likeliest(judge, pairs, real, fake)
        if not mismatch < TRUSTED_MISMATCH:
            raise NotThis(f"rebuilt, it disagrees with its own batch-norm statistics ({mismatch:.2g}; a right reading stays below {TRUSTED_MISMATCH:g})")
    return Settled(assemble(judge, slope, eps), (*opponent.assumptions, *_said(judge, (slope, eps), shown)), mismatch)


def _likeliest(judge: Judge, pairs: list[tuple[str, float]], real: Tensor, fake: Tensor) -> tuple[tuple[str, float], float, tuple[bool, bool]]:
    """The slope and eps whose statistics fit best, with dropout as it may have been where without it none fits; and which of both they show.

    What they do not show, being about as good for another value, is the customary one.
    """
    table = {(pair, 0.0): disagreement(assemble(judge, *pair), real, fake) for pair in pairs}
    if judge.drops and not min(table.values()) < FITTING:
        table |= {(pair, share): disagreement(assemble(judge, *pair, share), real, fake) for pair in pairs for share in DROPPED}
    best = {pair: min(value for (other, _), value in table.items() if other == pair) for pair in pairs}
    eps, eps_shown = _ranked({size: min(value for (_, other), value in best.items() if other == size) for _, size in pairs})
    slope, slope_shown = _ranked({name: best[name, eps] for name, other in pairs if other == eps})
    return (slope, eps), best[slope, eps], (slope_shown, eps_shown)


def _ranked(scores: dict[Choice, float]) -> tuple[Choice, bool]:
    """The best choice, and whether it is clearly so; else the first one, the customary."""
    customary, custom = next(iter(scores.items()))
    ranked = sorted(scores.items(), key=lambda row: row[1])
    best, least = ranked[0]
    clear = len(ranked) > 1 and ranked[1][1] >= CLEAR * least
    return (best, clear) if clear or custom >= CLEAR * least else (customary, False)


def _said(judge: Judge, chosen: tuple[str, float], shown: tuple[bool, bool]) -> tuple[Assumption, ...]:
    slope, eps = ("batch-norm" if seen else "default" for seen in shown)
    found = [Assumption("D: hidden activation", chosen[0], slope)] if len(judge.activations) > 1 else []
    found += [Assumption("D: batch-norm eps", f"{chosen[1]:g}", eps)] if judge.normed and len(judge.epses) > 1 else []
    return tuple(found)
