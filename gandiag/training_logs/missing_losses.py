"""Says why a file holds no losses of a GAN, and what to pass instead."""

from __future__ import annotations

from collections.abc import Sequence

from gandiag.errors import SourceError
from gandiag.training_logs.column_names import infer_step_role, split_words

MAX_NAME = 30  # characters of a column's name in a message
MAX_LISTED_COLUMNS = 12  # column names in the message
STYLEGAN_TICK_WORDS = {"tick", "kimg"}
OTHER_MODEL_WORDS = {"loss", "acc", "accuracy", "recon", "reconstruction", "kl", "kld", "elbo", "mse", "mae", "ppl"}


def explain_missing_losses(where: str, names: Sequence[str]) -> SourceError:
    """The error for a log with these columns."""
    if not names:
        return SourceError(
            f"no losses were found in {where}: no line has a name and a number",
            "pass the training log; a table without a header needs --columns step,d,g",
        )
    if all(infer_step_role(name) for name in names):
        return SourceError(
            f"no losses were found in {where}, only counters",
            "pass the training log; a table without a header needs --columns step,d,g",
        )
    words = {word for name in names for word in split_words(name)}
    if words >= STYLEGAN_TICK_WORDS and words & {"maintenance", "gpumem", "cpumem"}:
        return SourceError(
            f"{where} holds the ticks of StyleGAN, which have no losses", "pass stats.jsonl from the same folder"
        )
    shown = [name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…" for name in names[:MAX_LISTED_COLUMNS]]
    listed = ", ".join(shown) + (" …" if len(names) > MAX_LISTED_COLUMNS else "")
    if words & OTHER_MODEL_WORDS:
        return SourceError(
            f"no loss columns of two players were recognized in {where}, as if a classifier or an autoencoder had "
            f"written it; it has: {listed}",
            "pass the log of a GAN, or name its losses: --generator COLUMN --discriminator COLUMN",
        )
    return SourceError(
        f"no loss columns were recognized in {where}; it has: {listed}",
        "name them: --generator COLUMN --discriminator COLUMN",
    )
