"""Which losses these are, as far as their values say; levels mean something only where a loss has an end.

bounded     D's loss cannot fall below 0 (BCE, hinge, least squares, relativistic): at 0 it tells real from generated without error
unbounded   Wasserstein, or any D loss that goes below 0: its level says nothing
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
    # A penalty may pull a Wasserstein loss above 0 for long: one value clearly below is enough.
    return "unbounded" if float(value.min()) < -1e-3 * max(1.0, float(np.abs(value).max())) else "bounded"


def get_discriminator_probabilities(curves: Mapping[str, Curve]) -> tuple[Curve, Curve] | None:
    """D(x) and D(G(z)) where both were logged as probabilities, else None: logits have no level."""
    pair = curves.get("score_real"), curves.get("score_fake")
    if pair[0] is None or pair[1] is None:
        return None
    inside = all(_inside(curve.value[np.isfinite(curve.value)]) for curve in pair if curve is not None)
    return (pair[0], pair[1]) if inside else None


def _inside(value: Array) -> bool:
    return len(value) > 0 and bool((value >= 0).all() and (value <= 1).all())
