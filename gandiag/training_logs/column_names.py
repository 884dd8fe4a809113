"""Infers the role of a column from its name: generator loss, discriminator loss, D's scores, step, epoch or batch.

A name is split into words ("errG" -> err, g; "Loss/D/loss" -> loss, d, loss). The player, a word for a loss and the
remaining words decide. Of several columns for one role, the one with the fewest other words is the loss itself; the
others are its terms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache


def _words(text: str) -> set[str]:
    return set(text.split())


GENERATOR_WORDS = {"g", "gen", "generator", "netg", "geng", "gloss", "lossg", "errg"}
DISCRIMINATOR_WORDS = _words("d dis disc dsc discriminator discrim critic netd c dloss lossd errd crit")
LOSS_WORDS = _words("loss losses err error cost objective obj gloss dloss lossg lossd errg errd gan adv")
# Words that say nothing about what is measured.
NEUTRAL_WORDS = LOSS_WORDS | _words("train training total mean avg average step trainer metrics is the")
LOSS_TERM_WORDS = _words(
    """
    real fake gp penalty reg r1 r2 pl l1 l2 cycle cyc idt identity feat feature fm vgg perceptual kl rec
    recon reconstruction cls aux class info percep pixel pix content style mse epoch
    """
)
EXCLUDED_WORDS = _words(
    """
    lr rate acc accuracy time std min max num grad norm val valid validation test eval fid is timestamp
    eta sec secs seconds elapsed memory mem signs lrg lrd steps magnitude count
    """
)
STEP_WORDS = _words(
    """
    step steps iteration iterations iter iters itr it niter global update updates kimg nimg cur gan
    """
)
EPOCH_WORDS = {"epoch", "epochs", "ep"}
BATCH_WORDS = {"batch", "minibatch", "batches", "i"}
# Words that may stand beside those of a step or batch counter, and words that rule one out.
STEP_FILLER_WORDS = {"trainer", "progress", "train", "number", "no", "idx", "n", "current", "total"}
BATCH_FILLER_WORDS = {"idx", "index", "nb", "number", "current", "no"}
NOT_STEP_WORDS = {"loss", "time", "sec", "size", "per", "lr", "total", "seen"}
LOSS_TERM_RANK = 20  # what the name of a loss term adds to the rank of a column
REAL_SCORE_PATTERN = re.compile(
    r"^(d\(x\)|d_?x|d\(real\)|d_real_prob|real_?score|scores?_real|d_?score_?real|dx"
    r"|pred_real|prob_real|d_out_real|real_prob)$"
)
FAKE_SCORE_PATTERN = re.compile(
    r"^(d\(g\(z\)\)|d_?g_?z_?1?|d\(fake\)|d_fake_prob|fake_?score|scores?_fake|d_?score_?fake|dgz"
    r"|pred_fake|prob_fake|d_out_fake|fake_prob)$"
)
WORD_PATTERN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@cache
def split_words(name: str) -> tuple[str, ...]:
    """ "errG" -> ("err", "g"); "Loss/D/loss" -> ("loss", "d", "loss")."""
    return tuple(part.lower() for part in WORD_PATTERN.findall(name))


@cache
def infer_step_role(name: str) -> str | None:
    """ "step", "epoch" or "batch" for a column that gives the position of a row, else None."""
    words = set(split_words(name))
    if not words or words & NOT_STEP_WORDS:
        return None
    if words & EPOCH_WORDS and "step" not in words:
        return "epoch"
    if words & BATCH_WORDS and words <= BATCH_WORDS | BATCH_FILLER_WORDS:
        return "batch"
    if words & (STEP_WORDS - {"global", "cur", "gan"}) and words <= STEP_WORDS | STEP_FILLER_WORDS:
        return "step"
    return None


@cache
def infer_score_role(name: str) -> str | None:
    """ "score_real" for D(x), "score_fake" for D(G(z)), else None."""
    parts = name.strip().lower().replace(" ", "").rsplit("/", 2)
    for text in ("_".join(parts[-2:]), parts[-1]):
        if REAL_SCORE_PATTERN.match(text):
            return "score_real"
        if FAKE_SCORE_PATTERN.match(text):
            return "score_fake"
    return None


@cache
def infer_loss_role(name: str) -> tuple[str, int] | None:
    """(role, rank) of a loss column, else None.

    Rank 0 is the loss itself ("d_loss"); terms such as "d_loss_real" rank higher.
    """
    words = split_words(name)
    known = set(words)
    if not known or known & EXCLUDED_WORDS or infer_step_role(name) or infer_score_role(name):
        return None
    is_generator, is_discriminator = bool(known & GENERATOR_WORDS), bool(known & DISCRIMINATOR_WORDS)
    if not known & LOSS_WORDS and not _is_bare_player(words):
        return None
    if is_generator == is_discriminator:
        return _infer_unnamed_player(known, is_discriminator)
    player = GENERATOR_WORDS if is_generator else DISCRIMINATOR_WORDS
    rank = sum(_rank_word(word) for word in words if word not in NEUTRAL_WORDS | player)
    rank += 1 if "adv" in known or "gan" in known else 0
    rank += 4 if known & {"mean", "avg", "average"} else 0
    rank += 2 if not known & LOSS_WORDS else 0
    return ("generator" if is_generator else "discriminator"), rank


def _rank_word(word: str) -> int:
    """What a word adds to the rank: numbers nothing, the name of a loss term the most."""
    if word in LOSS_TERM_WORDS:
        return LOSS_TERM_RANK
    return 0 if word.isdigit() else 3


def _is_bare_player(words: tuple[str, ...]) -> bool:
    """ "G", "D", "D_real", "G_L1", "D_A": a player alone, or with the name of a loss term or a domain letter."""
    return words[0] in {"g", "d"} and all(
        word in LOSS_TERM_WORDS | {"a", "b", "g", "d"} or word.isdigit() for word in words[1:]
    )


def _infer_unnamed_player(words: set[str], names_both: bool) -> tuple[str, int] | None:
    """ "gan_loss", "adv_loss": the generator's loss, if there is no better column."""
    if names_both or not words & {"gan", "adv", "adversarial"} or not words & {"loss", "cost", "err", "error"}:
        return None
    return "generator", 30


def choose_columns(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Role -> its column, or several columns to add up. Roles without a column are absent."""
    names = list(dict.fromkeys(names))
    columns: dict[str, tuple[str, ...]] = {}
    for role in ("generator", "discriminator"):
        ranked = sorted(
            (loss_role[1], position, name)
            for position, name in enumerate(names)
            if (loss_role := infer_loss_role(name)) is not None and loss_role[0] == role
        )
        if ranked:
            columns[role] = _choose_loss_columns(role, ranked)
    for name in names:
        score_role = infer_score_role(name)
        if score_role:
            columns.setdefault(score_role, (name,))
    for role in ("step", "epoch", "batch"):
        candidates = [name for name in names if infer_step_role(name) == role]
        if candidates:
            columns[role] = (min(candidates, key=lambda name: (_rank_step_column(name), len(name))),)
    return columns


def _choose_loss_columns(role: str, ranked: list[tuple[int, int, str]]) -> tuple[str, ...]:
    """The best column; if only terms were logged, the real and the fake half of D's loss, to be added up."""
    best = ranked[0]
    if best[0] < LOSS_TERM_RANK or role == "generator":
        return (best[2],)
    real = [name for _, _, name in ranked if "real" in split_words(name)]
    fake = [name for _, _, name in ranked if "fake" in split_words(name)]
    return (real[0], fake[0]) if real and fake else (best[2],)


def _rank_step_column(name: str) -> int:
    """Counters of updates before counters of images; "global_step" before "step"."""
    words = set(split_words(name))
    if "global" in words:
        return 0
    return 1 if words & {"step", "iteration", "iter", "itr", "iters", "it", "niter"} else 2


def is_relevant_column(name: str) -> bool:
    """Whether a column has any role; the other columns of a wide table are not kept."""
    return infer_loss_role(name) is not None or infer_score_role(name) is not None or infer_step_role(name) is not None
