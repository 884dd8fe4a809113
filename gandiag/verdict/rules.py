"""Every rule in order. A rule turns the facts of a record into a finding with a code, or None.

GD1xx  kind of collapse             collapse_rules, group_rules, table_rules
GD2xx  latent scale                 latent_rules
GD3xx  fidelity and memorization    fidelity_rules, table_rules
GD4xx  trust in the loading         loading_rules
GD5xx  strength of the evidence     evidence_rules
GD6xx  nearest baseline             nearest_baseline
GD7xx  training losses, minimax game    training_rules, duality_gap_rules
GD9xx  broken output                fidelity_rules
"""

from __future__ import annotations

from gandiag.verdict.collapse_rules import COLLAPSE_RULES
from gandiag.verdict.duality_gap_rules import find_maximin_collapse, find_wide_duality_gap
from gandiag.verdict.evidence_rules import (
    find_blind_spots,
    find_failed_metrics,
    find_insufficient_evidence,
    find_limit_in_interval,
    find_missing_real_data,
)
from gandiag.verdict.fidelity_rules import (
    find_constant_channels,
    find_memorization,
    find_off_distribution_samples,
    find_structure_gap,
    find_transformation,
)
from gandiag.verdict.group_rules import GROUP_RULES
from gandiag.verdict.latent_rules import find_missing_scale_response, find_wrong_latent_scale
from gandiag.verdict.loading_rules import find_embedded_code, find_loading_mismatch, find_untrained_network
from gandiag.verdict.nearest_baseline import find_closest_baseline
from gandiag.verdict.rule_base import Rule
from gandiag.verdict.table_rules import TABLE_COLLAPSE_RULES, TABLE_FIDELITY_RULES
from gandiag.verdict.training_rules import TRAINING_RULES

# Findings of one level are reported in this order.
RULES: tuple[Rule, ...] = (
    find_loading_mismatch,
    find_untrained_network,
    find_insufficient_evidence,
    find_wrong_latent_scale,
    find_memorization,
    *COLLAPSE_RULES,
    *GROUP_RULES,
    *TABLE_COLLAPSE_RULES,
    find_limit_in_interval,
    find_blind_spots,
    find_off_distribution_samples,
    *TABLE_FIDELITY_RULES,
    find_transformation,
    find_structure_gap,
    find_constant_channels,
    find_failed_metrics,
    find_missing_scale_response,
    find_missing_real_data,
    find_embedded_code,
    *TRAINING_RULES,
    find_maximin_collapse,
    find_wide_duality_gap,
    find_closest_baseline,
)
RULE_KINDS = {entry.code: entry.kind for entry in RULES if entry.kind}
