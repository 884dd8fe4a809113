"""What a column is, told from its name: generator loss, discriminator loss, D's scores, step, epoch or batch.

A name is cut into words ("errG" → err, g; "Loss/D/loss" → loss, d, loss). The player, a word for loss, and what is left
over decide: of several columns for one role, the one with the fewest other words is the loss itself, the rest are its parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

GENERATOR_WORDS = {"g", "gen", "generator", "netg", "geng", "gloss", "lossg", "errg"}
DISCRIMINATOR_WORDS = {
    "d",
    "dis",
    "disc",
    "dsc",
    "discriminator",
    "discrim",
    "critic",
    "netd",
    "c",
    "dloss",
    "lossd",
    "errd",
    "crit",
}
LOSS_WORDS = {
    "loss",
    "losses",
    "err",
    "error",
    "cost",
    "objective",
    "obj",
    "gloss",
    "dloss",
    "lossg",
    "lossd",
    "errg",
    "errd",
    "gan",
    "adv",
}
# Words that say nothing of what is measured; a trailing number is a position.
NEUTRAL_WORDS = LOSS_WORDS | {
    "train",
    "training",
    "total",
    "mean",
    "avg",
    "average",
    "step",
    "trainer",
    "metrics",
    "is",
    "the",
}
LOSS_TERM_WORDS = {
    "real",
    "fake",
    "gp",
    "penalty",
    "reg",
    "r1",
    "r2",
    "pl",
    "l1",
    "l2",
    "cycle",
    "cyc",
    "idt",
    "identity",
    "feat",
    "feature",
    "fm",
    "vgg",
    "perceptual",
    "kl",
    "rec",
    "recon",
    "reconstruction",
    "cls",
    "aux",
    "class",
    "info",
    "percep",
    "pixel",
    "pix",
    "content",
    "style",
    "mse",
    "epoch",
}
EXCLUDED_WORDS = {
    "lr",
    "rate",
    "acc",
    "accuracy",
    "time",
    "std",
    "min",
    "max",
    "num",
    "grad",
    "norm",
    "val",
    "valid",
    "validation",
    "test",
    "eval",
    "fid",
    "is",
    "timestamp",
    "eta",
    "sec",
    "secs",
    "seconds",
    "elapsed",
    "memory",
    "mem",
    "signs",
    "lrg",
    "lrd",
    "steps",
    "magnitude",
    "count",
}
STEP_WORDS = {
    "step",
    "steps",
    "iteration",
    "iterations",
    "iter",
    "iters",
    "itr",
    "it",
    "niter",
    "global",
    "update",
    "updates",
    "kimg",
    "nimg",
    "cur",
    "gan",
}
EPOCH_WORDS = {"epoch", "epochs", "ep"}
BATCH_WORDS = {"batch", "minibatch", "batches", "i"}
REAL_SCORE_PATTERN = re.compile(
    r"^(d\(x\)|d_?x|d\(real\)|d_real_prob|real_?score|scores?_real|d_?score_?real|dx|pred_real|prob_real|d_out_real|real_prob)$"
)
FAKE_SCORE_PATTERN = re.compile(
    r"^(d\(g\(z\)\)|d_?g_?z_?1?|d\(fake\)|d_fake_prob|fake_?score|scores?_fake|d_?score_?fake|dgz|pred_fake|prob_fake|d_out_fake|fake_prob)$"
)
WORD_PATTERN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@cache
def split_words(name: str) -> tuple[str, ...]:
    """ "errG" → ("err", "g"); "Loss/D/loss" → ("loss", "d", "loss")."""
    return tuple(part.lower() for part in WORD_PATTERN.findall(name))


@cache
def infer_step_role(name: str) -> str | None:
    """ "step", "epoch" or "batch" for a column that says where a row stands, else None."""
    found = set(split_words(name))
    if not found or found & {"loss", "time", "sec", "size", "per", "lr", "total", "seen"}:
        return None
    if found & EPOCH_WORDS and not found & {"step"}:
        return "epoch"
    if found & BATCH_WORDS and found <= BATCH_WORDS | {"idx", "index", "nb", "number", "current", "no"}:
        return "batch"
    if found & (STEP_WORDS - {"global", "cur", "gan"}) and found <= STEP_WORDS | {
        "trainer",
        "progress",
        "train",
        "number",
        "no",
        "idx",
        "n",
        "current",
        "total",
    }:
        return "step"
    return None


@cache
def infer_score_role(name: str) -> str | None:
    """ "score_real" for D(x), "score_fake" for D(G(z)), else None."""
    short = name.strip().lower().replace(" ", "").rsplit("/", 2)
    for text in ("_".join(short[-2:]), short[-1]):
        if REAL_SCORE_PATTERN.match(text):
            return "score_real"
        if FAKE_SCORE_PATTERN.match(text):
            return "score_fake"
    return None


@cache
def infer_loss_role(name: str) -> tuple[str, int] | None:
    """(role, how far from the loss itself) for a loss column: 0 is "d_loss"; parts such as "d_loss_real" are farther. Else None."""
    found = split_words(name)
    have = set(found)
    if not have or have & EXCLUDED_WORDS or infer_step_role(name) or infer_score_role(name):
        return None
    is_g, is_d = bool(have & GENERATOR_WORDS), bool(have & DISCRIMINATOR_WORDS)
    if not have & LOSS_WORDS and not _bare(found):
        return None
    if is_g == is_d:
        return _whole_gan(have, is_d)
    player = GENERATOR_WORDS if is_g else DISCRIMINATOR_WORDS
    rest = [word for word in found if word not in NEUTRAL_WORDS | player]
    far = sum(20 if word in LOSS_TERM_WORDS else 0 if word.isdigit() else 3 for word in rest)
    far += 1 if "adv" in have or "gan" in have else 0
    far += 4 if have & {"mean", "avg", "average"} else 0
    far += 2 if not have & LOSS_WORDS else 0
    return ("generator" if is_g else "discriminator"), far


def _bare(found: tuple[str, ...]) -> bool:
    """ "G", "D", "D_real", "G_L1", "D_A": a player alone, or with a known part or a domain letter."""
    return found[0] in {"g", "d"} and all(
        word in LOSS_TERM_WORDS | {"a", "b", "g", "d"} or word.isdigit() for word in found[1:]
    )


def _whole_gan(have: set[str], both: bool) -> tuple[str, int] | None:
    """ "gan_loss", "adv_loss": the generator's, where nothing better is there."""
    if both or not have & {"gan", "adv", "adversarial"} or not have & {"loss", "cost", "err", "error"}:
        return None
    return "generator", 30


def choose_columns(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Role → the columns that make it, several to be added up. Roles without a column are absent."""
    names = list(dict.fromkeys(names))
    found: dict[str, tuple[str, ...]] = {}
    for role in ("generator", "discriminator"):
        ranked = sorted(
            (rank[1], at, name)
            for at, name in enumerate(names)
            if (rank := infer_loss_role(name)) is not None and rank[0] == role
        )
        if ranked:
            found[role] = _summed(role, ranked)
    for name in names:
        kind = infer_score_role(name)
        if kind:
            found.setdefault(kind, (name,))
    for kind in ("step", "epoch", "batch"):
        fitting = [name for name in names if infer_step_role(name) == kind]
        if fitting:
            found[kind] = (min(fitting, key=lambda name: (_step_rank(name), len(name))),)
    return found


def _summed(role: str, ranked: list[tuple[int, int, str]]) -> tuple[str, ...]:
    """The best column; where only parts are there, the real and the fake half of D added up."""
    best = ranked[0]
    if best[0] < 20 or role == "generator":
        return (best[2],)
    halves = [name for _, _, name in ranked if {"real", "fake"} & set(split_words(name))]
    real = [name for name in halves if "real" in split_words(name)]
    fake = [name for name in halves if "fake" in split_words(name)]
    return (real[0], fake[0]) if real and fake else (best[2],)


def _step_rank(name: str) -> int:
    """Counters of updates before counters of images; "global_step" before "step"."""
    have = set(split_words(name))
    return 0 if "global" in have else 1 if have & {"step", "iteration", "iter", "itr", "iters", "it", "niter"} else 2


def is_relevant_column(name: str) -> bool:
    """Whether a column may be of use at all: the others of a wide table are not kept."""
    return infer_loss_role(name) is not None or infer_score_role(name) is not None or infer_step_role(name) is not None
