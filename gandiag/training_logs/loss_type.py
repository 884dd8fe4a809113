"""Infers the type of loss from its values. The level of a loss means something only if the loss is bounded.

bounded     D's loss cannot fall below 0 (BCE, hinge, least squares, relativistic); at 0 D never errs
unbounded   Wasserstein, or any D loss that goes below 0: its level means nothing
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gandiag.training_logs.series import Array, Curve

WASSERSTEIN_WORDS = ("critic", "wasserstein", "wgan", "wdist")


def infer_loss_type(curves: Mapping[str, Curve]) -> str:
    """ "bounded", "unbounded", or "unknown" without a discriminator loss."""
    loss = curves.get("discriminator")
    if loss is None:
        return "unknown"
    value = loss.value[np.isfinite(loss.value)]
    if any(word in loss.name.lower() for word in WASSERSTEIN_WORDS) or len(value) == 0:
        return "unbounded"
    # A penalty can keep a Wasserstein loss above 0 for long: a single value below is enough.
    return "unbounded" if float(value.min()) < -1e-9 else "bounded"


def get_discriminator_probabilities(curves: Mapping[str, Curve]) -> tuple[Curve, Curve] | None:
    """D(x) and D(G(z)) if both were logged as probabilities; None otherwise, because logits have no fixed level."""
    real, fake = curves.get("score_real"), curves.get("score_fake")
    if real is None or fake is None:
        return None
    return (real, fake) if _are_probabilities(real.value) and _are_probabilities(fake.value) else None


def _are_probabilities(value: Array) -> bool:
    """Whether there are finite values, all of them in [0, 1]."""
    value = value[np.isfinite(value)]
    return len(value) > 0 and bool((value >= 0).all() and (value <= 1).all())
