"""Thresholds on the BatchNorm mismatch, in one place.

The mismatch is |Δmean| / sigma + |log variance ratio|, averaged over channels and BatchNorm layers
(`moments.moments_distance`).
"""

from __future__ import annotations

from gandiag.config import MAX_BATCHNORM_MISMATCH

GOOD_MISMATCH = 0.15  # a correct rebuild stays below it; wrong ones measured 0.2 to 2
BAD_MISMATCH = MAX_BATCHNORM_MISMATCH  # at or above it no candidate is plausible: this is not the trained network
DECISIVE_RATIO = 2.0  # a candidate that fits this many times worse than the best is ruled out
# A default that fits this many times worse than a good candidate is given up. Less is no evidence: one more pixel of
# padding may change little but the border.
DEFAULT_OVERRIDE_RATIO = 1.25
