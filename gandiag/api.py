"""The public functions load() and audit()."""

from __future__ import annotations

import os
from typing import Any

from gandiag.checkpoints.loader import load_generator
from gandiag.config import resolve_config
from gandiag.pipeline.engine import ProgressCallback, no_progress
from gandiag.pipeline.group_inputs import GroupInputs
from gandiag.pipeline.run_audit import MessageCallback, audit_with_config
from gandiag.pipeline.subject import make_sampler
from gandiag.record import Record
from gandiag.report.assumptions import state_assumption
from gandiag.sampling.sampler import Sampler


def load(path: str | os.PathLike[str], **settings: Any) -> Sampler:
    """Load a generator from a checkpoint.

    `.sample(n, seed=0, scale=1.0, labels=None)` of the result returns a CPU tensor (n, …) in data units;
    `.assumptions` states what the file does not say: what, value and source as text, setting and data.
    `settings`: the fields of AuditConfig on how to read the file (latent_dim, classes, model, trust …). Nothing in the
    file is executed without `trust=True`. LoadError states what is missing.
    """
    config = resolve_config(settings).config
    sampler = make_sampler(load_generator(path, config), config)
    sampler.assumptions = tuple(map(state_assumption, sampler.generator.assumptions))
    return sampler


def audit(
    x: Any,
    real: Any = None,
    *,
    groups: Any = None,
    against: Any = None,
    against_groups: Any = None,
    holdout: Any = None,
    progress: ProgressCallback = no_progress,
    on_message: MessageCallback | None = None,
    **settings: Any,
) -> Record:
    """Audit a generator or a set of samples for mode collapse; `print(record)` shows the verdict and the evidence.

    x, real: path, Sampler, nn.Module (with latent_dim=…), array, tensor, Dataset or DataFrame. `holdout`: of tables,
    real rows that were kept out of training. `settings`: fields of AuditConfig.
    `groups`: one group per sample of x (a prompt, a class), and the audit is of the variety within groups, relative to
    that of `against` (samples with `against_groups`, a path, a model) or of real data with classes. x may also be a
    function fn(condition, seeds) that returns one sample per seed; `groups` are then its conditions, `per_group` the
    samples of each.
    Raises LoadError, SourceError, OutputError or FeatureError where x cannot be audited; the model is left unchanged.
    Cost: n generated and 2n real samples through the feature extractors, then distances, O(n² D).
    """
    if isinstance(real, (str, os.PathLike)):
        settings["real"], real = str(real), None
    if isinstance(holdout, (str, os.PathLike)):
        settings["holdout"], holdout = str(holdout), None
    if isinstance(against, (str, os.PathLike)):
        settings["against"], against = str(against), None
    if "per_group" in settings:
        settings["per_class"] = settings.pop("per_group")
    return audit_with_config(
        x,
        resolve_config(settings),
        real=real,
        holdout=holdout,
        progress=progress,
        on_message=on_message,
        grouping=GroupInputs(groups, against, against_groups),
    )
