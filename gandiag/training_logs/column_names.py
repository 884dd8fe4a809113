"""Infers the role of a column from its name: generator loss, discriminator loss, D's scores, step, epoch or batch.

A name is split into words ("errG" -> err, g; "Loss/D/loss" -> loss, d, loss). The player, a word for a loss and the
remaining words decide. Of several columns for one role, the one with the fewest other words is the loss itself; the
others are its terms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from gandiag.training_logs.foreign_names import translate_names


def _words(text: str) -> set[str]:
    return set(text.split())


GENERATOR_WORDS = _words("g gen generator refiner netg geng gloss lossg errg genloss lossgen")
DISCRIMINATOR_WORDS = _words(
    "d dis disc discr dsc discriminator discrim critic netd c dloss lossd errd crit discloss lossdisc"
)
LOSS_WORDS = _words(
    "loss losses err error cost objective obj gloss dloss lossg lossd errg errd gan "
    "adv adversarial perte verlust discloss lossdisc genloss lossgen"
)
ADVERSARIAL_WORDS = {"gan", "adv", "adversarial"}
# Words that say nothing about what is measured.
NEUTRAL_WORDS = LOSS_WORDS | _words("train training total mean avg average step trainer metrics is the")
LOSS_TERM_WORDS = _words(
    """
    real fake gp penalty reg r1 r2 pl l1 l2 cycle cyc idt identity feat feature fm vgg perceptual kl rec
    recon reconstruction cls aux class info percep pixel pix content style mse epoch mel dur ssim lpips tv all
    """
)
# Terms that a generator's total adds to its adversarial loss: beside one of them, the adversarial part is preferred.
RECONSTRUCTION_WORDS = _words(
    """
    l1 l2 cycle cyc idt identity feat feature fm mel kl vgg perceptual percep pix pixel rec recon reconstruction content
    style ssim lpips tv dur mse cls
    """
)
# Words that tell one pair of players from another: domains, scales, kinds of discriminators.
DOMAIN_WORDS = _words(
    """
    a b x y s t f p r mpd msd mrd mssd msstftd cqt period scale stft patch global local image img video obj object face
    source target spec wave temporal spatial frame seq u v 0 1 2 3 4 5 6 7 8 9
    """
)
PART_WORDS = {"scale", "patch", "global", "local", "image", "img", "video", "vid", "frame", "face", "obj", "object"}
SPECTROGRAM_DISCRIMINATORS = {"msstftd", "mpd", "msd", "mrd", "mssd"}  # of vocoders and codecs
EXCLUDED_WORDS = _words(
    """
    lr rate acc accuracy time std min max num grad norm val valid validation test eval fid timestamp
    eta sec secs seconds elapsed memory mem signs lrg lrd steps magnitude count
    """
)
STEP_WORDS = _words(
    """
    step steps iteration iterations iter iters itr it niter global update updates kimg nimg cur gan
    """
)
EPOCH_WORDS = {"epoch", "epochs", "ep", "epoche", "epoca"}
BATCH_WORDS = {"batch", "minibatch", "batches", "i"}
# Words that may stand beside those of a step or batch counter, and words that rule one out.
STEP_FILLER_WORDS = {
    "stdout",
    "stderr",
    "f",
    "at",
    "trainer",
    "progress",
    "train",
    "number",
    "no",
    "idx",
    "n",
    "current",
    "total",
}
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
EXPORT_SEPARATOR = " - "  # between run and metric in W&B's exports
SECOND = " (second)"  # of two values under one label
NUMBERED_TERMS = {("l", "1"): "l1", ("l", "2"): "l2", ("r", "1"): "r1", ("r", "2"): "r2"}
# Columns that only an order tells apart: VITS prints D's loss first, then G's.
LIST_COLUMNS = (("Losses", "Losses (second)"), ("losses", "losses (second)"), ("list", "list (second)"))


@lru_cache(maxsize=65_536)
def split_words(name: str) -> tuple[str, ...]:
    """ "errG" -> ("err", "g"); "Loss/D/loss" -> ("loss", "d", "loss"); "G_L1" -> ("g", "l1")."""
    text = name if name.isascii() else translate_names(name)
    tail = text.rpartition(":")[2]  # what a logger puts in front
    text = tail if any(char.isalpha() for char in tail) else text
    words: list[str] = []
    for part in WORD_PATTERN.findall(text):
        word = part.lower()
        if words and (words[-1], word) in NUMBERED_TERMS:
            words[-1] = NUMBERED_TERMS[words[-1], word]
        else:
            words.append(word)
    if len(words) > 1 and words[0] == "l":  # "l_g_gan", "l_d"
        words[0] = "loss"
    return tuple(words)


@lru_cache(maxsize=65_536)
def infer_step_role(name: str) -> str | None:
    """ "step", "epoch" or "batch" for a column that gives the position of a row, else None."""
    tail = name.rpartition("/")[2]
    if tail and tail != name and (role := infer_step_role(tail)) is not None:
        return role
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


@lru_cache(maxsize=65_536)
def infer_score_role(name: str) -> str | None:
    """ "score_real" for D(x), "score_fake" for D(G(z)), else None."""
    parts = name.strip().lower().replace(" ", "").rsplit("/", 2)
    for text in ("_".join(parts[-2:]), parts[-1]):
        if REAL_SCORE_PATTERN.match(text):
            return "score_real"
        if FAKE_SCORE_PATTERN.match(text):
            return "score_fake"
    return None


@lru_cache(maxsize=65_536)
def infer_loss_role(name: str) -> tuple[str, int] | None:
    """(role, rank) of a loss column, else None.

    Rank 0 is the loss itself ("d_loss"); terms such as "d_loss_real" rank higher.
    """
    if name.endswith(SECOND) and (role := infer_loss_role(name.removesuffix(SECOND))) is not None:
        return role[0], role[1] + LOSS_TERM_RANK + 5
    words = split_words(name)
    known = set(words)
    if not known or known & EXCLUDED_WORDS or infer_step_role(name) or infer_score_role(name):
        return None
    is_generator, is_discriminator = bool(known & GENERATOR_WORDS), bool(known & DISCRIMINATOR_WORDS)
    if not known & LOSS_WORDS and not _is_bare_player(words, name):
        return None
    if is_generator and is_discriminator and known & {"real", "fake"}:
        is_generator = False  # "loss_disc_fake_g": D's loss on generated samples
    if is_generator == is_discriminator:
        return _infer_unnamed_player(known, is_discriminator)
    player = GENERATOR_WORDS | DISCRIMINATOR_WORDS
    is_adversarial = bool(known & ADVERSARIAL_WORDS)
    rank = sum(_rank_word(word, is_adversarial) for word in words if word not in NEUTRAL_WORDS | player)
    rank += 1 if is_adversarial else 0
    rank += 4 if known & {"mean", "avg", "average"} else 0
    rank += 2 if not known & LOSS_WORDS else 0
    return ("generator" if is_generator else "discriminator"), rank


def _rank_word(word: str, is_adversarial: bool = False) -> int:
    """What a word adds to the rank: numbers nothing, the name of a loss term the most; "mse_gan" is no such term."""
    if word == "mse" and is_adversarial:
        return 1
    if word in LOSS_TERM_WORDS:
        return LOSS_TERM_RANK
    return 0 if word.isdigit() else 3


def _is_bare_player(words: tuple[str, ...], name: str) -> bool:
    """ "G", "D", "D_real", "G_L1", "D_A", "d1", "Gen.", "D/latent_real": a player without a word for a loss."""
    if all(word in GENERATOR_WORDS | DISCRIMINATOR_WORDS or word.isdigit() for word in words):
        return True
    if re.match(r"[GD]/\w", name):
        return True
    if words[0] == "d" and all(word in PART_WORDS or word.isdigit() for word in words[1:]):  # "D_scale0", "D_face"
        return True
    return words[0] in {"g", "d", "c"} and all(
        word in LOSS_TERM_WORDS | {"a", "b", "g", "d"} | SPECTROGRAM_DISCRIMINATORS or word.isdigit()
        for word in words[1:]
    )


def _infer_unnamed_player(words: set[str], names_both: bool) -> tuple[str, int] | None:
    """ "gan_loss", "adv_loss", SPADE's "GAN": the generator's loss, if there is no better column."""
    if names_both or not words & ADVERSARIAL_WORDS:
        return None
    if words <= ADVERSARIAL_WORDS | {"loss"} | SPECTROGRAM_DISCRIMINATORS:
        return "generator", 10
    return ("generator", 30) if words & {"loss", "cost", "err", "error"} else None


def choose_columns(names: Iterable[str], context: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """Role -> its column, or several columns to add up. Roles without a column are absent.

    `context`: all columns of the log, kept or not. They tell whether a generator's total holds other terms.
    """
    names = list(dict.fromkeys(names))
    columns: dict[str, tuple[str, ...]] = {}
    for role in ("generator", "discriminator"):
        ranked = rank_loss_columns(names, role)
        if ranked and role == "generator":
            columns[role] = (_choose_generator_column(ranked, [*names, *context]),)
        elif ranked:
            columns[role] = _choose_discriminator_columns(ranked)
    if not columns:
        pair = next((pair for pair in LIST_COLUMNS if set(pair) <= set(names)), None)
        columns = {"discriminator": pair[:1], "generator": pair[1:]} if pair else {}
    for name in names:
        score_role = infer_score_role(name)
        if score_role:
            columns.setdefault(score_role, (name,))
    for role in ("step", "epoch", "batch"):
        candidates = [name for name in names if infer_step_role(name) == role]
        if candidates:
            columns[role] = (min(candidates, key=lambda name: (_rank_step_column(name), len(name))),)
    return columns


def rank_loss_columns(names: Iterable[str], role: str) -> list[tuple[int, int, str]]:
    """(rank, position, name) of all columns of a player, best first."""
    return sorted(
        (loss_role[1], position, name)
        for position, name in enumerate(names)
        if (loss_role := infer_loss_role(name)) is not None and loss_role[0] == role
    )


def _choose_generator_column(ranked: list[tuple[int, int, str]], context: list[str]) -> str:
    """The best column; where other terms are logged too, the adversarial part before a total."""
    has_terms = any(set(split_words(name)) & RECONSTRUCTION_WORDS for name in context)
    adversarial = [
        entry for entry in ranked if entry[0] < LOSS_TERM_RANK and set(split_words(entry[2])) & ADVERSARIAL_WORDS
    ]
    return (adversarial[0] if has_terms and adversarial else ranked[0])[2]


def _choose_discriminator_columns(ranked: list[tuple[int, int, str]]) -> tuple[str, ...]:
    """The best column; if only terms were logged, the real and the fake half of the loss, to be added up."""
    best, names = ranked[0], [name for _, _, name in ranked]
    halves = next(((f"{letter}1", f"{letter}2") for letter in "dc" if {f"{letter}1", f"{letter}2"} <= set(names)), None)
    if halves is not None and best[2] in halves:
        return halves
    second = f"{best[2]} (second)"
    if second in names and re.match(r"d[A-Z]?$", best[2]):  # "dA[0.3, 0.2]": the real and the fake half
        return best[2], second
    if best[0] < LOSS_TERM_RANK:
        return (best[2],)
    real = [name for name in names if "real" in split_words(name)]
    fake = [name for name in names if "fake" in split_words(name)]
    return tuple(dict.fromkeys((real[0], fake[0]))) if real and fake else (best[2],)


def choose_pairs(names: Iterable[str], chosen: Mapping[str, tuple[str, ...]]) -> list[dict[str, tuple[str, ...]]]:
    """The other pairs of players: D_B and G_B, a second discriminator against the same generator.

    Each is a mapping of "discriminator" and "generator" to columns.
    """
    names = list(dict.fromkeys(names))
    first = chosen.get("discriminator", ())
    if len(first) == 0:
        return []
    used, own_domain = set(first), _get_domain(first[0])
    generators = {
        _get_domain(name): name for rank, _, name in rank_loss_columns(names, "generator") if rank < LOSS_TERM_RANK
    }
    pairs: list[dict[str, tuple[str, ...]]] = []
    seen = {own_domain}
    for rank, _, name in rank_loss_columns(names, "discriminator"):
        domain = _get_domain(name)
        if rank >= LOSS_TERM_RANK or name in used or name.endswith(" (second)") or not domain or domain in seen:
            continue
        if own_domain is None and not set(domain) <= DOMAIN_WORDS:
            continue
        seen.add(domain)
        second = f"{name} (second)"
        columns = (name, second) if second in names and re.match(r"d[A-Z]?$", name) else (name,)
        generator = (generators[domain],) if domain in generators else chosen.get("generator", ())
        pairs.append({"discriminator": columns, **({"generator": generator} if generator else {})})
    return pairs


def group_exported_runs(names: Iterable[str]) -> dict[str, set[str]]:
    """Run -> its columns and those of all runs, for exports like "run-1 - g_loss"; empty for any other table."""
    names = list(names)
    groups: dict[str, dict[str, str]] = {}
    for name in names:
        run, separator, metric = name.partition(EXPORT_SEPARATOR)
        if separator and is_value_column(metric):
            groups.setdefault(run, {})[metric] = name
    common = {name for name in names if EXPORT_SEPARATOR not in name}
    own = {run: {name for name in names if name.startswith(f"{run}{EXPORT_SEPARATOR}")} for run in groups}
    metrics = [frozenset(group) for group in groups.values()]
    has_shared = len(metrics) > 1 and all(metrics[0] & other for other in metrics[1:])
    return {run: columns | common for run, columns in own.items()} if has_shared else {}


def _get_domain(name: str) -> tuple[str, ...] | None:
    """The words that tell this pair from others; None for other words, which make a term of the same loss."""
    words = [
        word
        for word in split_words(name.removesuffix(" (second)"))
        if word not in NEUTRAL_WORDS | GENERATOR_WORDS | DISCRIMINATOR_WORDS
    ]
    return tuple(words) if all(word in DOMAIN_WORDS for word in words) else None


def _rank_step_column(name: str) -> int:
    """Counters of updates before counters of images; "global_step" before "step"."""
    words = set(split_words(name))
    if "global" in words:
        return 0
    return 1 if words & {"step", "iteration", "iter", "itr", "iters", "it", "niter"} else 2


def is_value_column(name: str) -> bool:
    """Whether a column holds a loss or a score."""
    if infer_loss_role(name) is not None or infer_score_role(name) is not None:
        return True
    return any(name in pair for pair in LIST_COLUMNS)


def is_relevant_column(name: str) -> bool:
    """Whether a column has any role; the other columns of a wide table are not kept."""
    return is_value_column(name) or infer_step_role(name) is not None
