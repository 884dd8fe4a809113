"""The public functions load() and audit()."""

from __future__ import annotations

import os
from typing import Any, Unpack

from gandiag.checkpoints.loader import load_generator
from gandiag.config import resolve_config
from gandiag.keywords.errors import naming_keywords
from gandiag.keywords.settings import AuditSettings, LoadSettings, document_settings
from gandiag.pipeline.engine import ProgressCallback, no_progress
from gandiag.pipeline.group_inputs import GroupInputs
from gandiag.pipeline.notebook_progress import show_notebook_progress
from gandiag.pipeline.run_audit import MessageCallback, audit_with_config
from gandiag.pipeline.subject import make_sampler
from gandiag.record import Record
from gandiag.report.assumptions import state_assumption
from gandiag.sampling.sampler import Sampler


@document_settings(LoadSettings)
def load(path: str | os.PathLike[str], **settings: Unpack[LoadSettings]) -> Sampler:
    """Load a generator from a checkpoint.

    `.sample(n, seed=0, scale=1.0, labels=None)` of the result returns a CPU tensor (n, …) in data units;
    `.assumptions` states what the file does not say: what, value and source as text, setting and data.
    A setting that is not given comes from the environment or a TOML file, else it is the default below; None is
    inferred from the file. Nothing in the file is executed without `trust=True`. LoadError states what is missing.
    """
    with naming_keywords():
        config = resolve_config(settings).config
        sampler = make_sampler(load_generator(path, config), config)
    sampler.assumptions = tuple(map(state_assumption, sampler.generator.assumptions))
    return sampler


@document_settings(AuditSettings)
def audit(
    x: Any,
    real: Any = None,
    *,
    groups: Any = None,
    against: Any = None,
    against_groups: Any = None,
    holdout: Any = None,
    per_group: int | None = None,
    progress: ProgressCallback = no_progress,
    on_message: MessageCallback | None = None,
    **settings: Unpack[AuditSettings],
) -> Record:
    """Audit a generator or a set of samples for mode collapse.

    `print(record)` shows the verdict and all evidence, `record.summary()` the short form; a notebook shows the page.

    x, real: path, Sampler, nn.Module (with latent_dim=…), array, tensor, Dataset or DataFrame; x may be a function
    fn(n, seed) that returns n samples. A notebook shows a bar unless `progress` is given. `holdout`: of tables,
    real rows that were kept out of training. A setting that is not given comes from the environment or a TOML file,
    else it is the default below; None is inferred, and reported as an assumption.
    `groups`: one group per sample of x (a prompt, a class), and the audit is of the variety within groups, relative to
    that of `against` (samples with `against_groups`, a path, a model) or of real data with classes. x may also be a
    function fn(condition, seeds) that returns one sample per seed; `groups` are then its conditions, `per_group` the
    samples of each.
    Raises LoadError, SourceError, OutputError or FeatureError where x cannot be audited; the model is left unchanged.
    Cost: n generated and 2n real samples through the feature extractors, then distances, O(n² D).
    """
    values: dict[str, Any] = dict(settings)
    for name, given in (("real", real), ("holdout", holdout), ("against", against)):
        if isinstance(given, (str, os.PathLike)):
            values[name] = str(given)
    if per_group is not None:
        values["per_class"] = per_group
    real, holdout, against = (
        None if isinstance(given, (str, os.PathLike)) else given for given in (real, holdout, against)
    )
    with naming_keywords(), show_notebook_progress(progress) as on_progress:
        return audit_with_config(
            x,
            resolve_config(values),
            real=real,
            holdout=holdout,
            progress=on_progress,
            on_message=on_message,
            grouping=GroupInputs(groups, against, against_groups),
        )
