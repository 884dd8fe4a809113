"""The two public verbs, load() and audit(): the only place where measuring and judging meet."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from gandiag.assemble import build_provenance, build_record
from gandiag.config import ResolvedConfig, resolve_config
from gandiag.engine import StageTimer, ProgressCallback, run_metrics, merge_results, no_progress, collect_needs, run_sources
from gandiag.judge.judge import apply_policy
from gandiag.load.generator import load_generator
from gandiag.plan import collect_degradation_needs
from gandiag.probing import run_probes
from gandiag.record import Record, to_json_value
from gandiag.sample.sampler import Sampler
from gandiag.study import open_session
from gandiag.subjects import make_sampler
from gandiag.training import losses

MessageCallback = Callable[[str], None]


def load(path: str | os.PathLike[str], **settings: Any) -> Sampler:
    """A generator from a checkpoint: `.sample(n, seed=0, scale=1.0, labels=None)` gives a CPU tensor (n, …) in data units.

    `settings`: the fields of AuditConfig that say how to read the file (latent_dim, classes, model, trust …). Nothing in the
    file is executed without `trust=True`. Raises LoadError with what is missing.
    """
    config = resolve_config(settings).config
    return make_sampler(load_generator(path, config), config)


def audit(x: Any, real: Any = None, *, progress: ProgressCallback = no_progress, on_message: MessageCallback | None = None, **settings: Any) -> Record:
    """Has this generator collapsed? The judged Record; `print(record)` shows it.

    x, real: path, Generator, nn.Module (with latent_dim=…), array, tensor or Dataset. `settings`: fields of AuditConfig.
    Cost: one pass over n generated and 2n real samples through the features, then distances, O(n² D).
    Raises LoadError, SourceError, OutputError or FeatureError when it cannot be audited; the model is left as it was.
    """
    if isinstance(real, (str, os.PathLike)):
        settings["real"], real = str(real), None
    return audit_with_config(x, resolve_config(settings), real=real, progress=progress, on_message=on_message)


def audit_with_config(x: Any, resolved: ResolvedConfig, *, real: Any = None, progress: ProgressCallback = no_progress, on_message: MessageCallback | None = None) -> Record:
    """`audit` with resolved settings: cheap failures first, then the passes, the probes and the judgement."""
    clock = StageTimer()
    training = None if resolved.config.log is None else to_json_value(losses(resolved.config.log, seed=resolved.config.seed).document)
    study = open_session(x, resolved.config, real=real, timer=clock)
    if on_message is not None:
        on_message(study.summary())
    needs = collect_needs(study.plan.metrics)
    results: dict[str, dict[Any, Any]] = {}
    while needs:  # a second and third round only where low fidelity asks for a look through frosted glass
        streams = {role: (study.batch_factory(role, needs), study.n_samples(role)) for role in needs}
        for role, found in run_sources(needs, streams, timer=clock, progress=progress).items():
            results.setdefault(role, {}).update(found)
        needs = collect_degradation_needs(study.plan, results)
    outcome = merge_results([run_metrics(study.plan.metrics, results, timer=clock, progress=progress), *run_probes(study, results, timer=clock, progress=progress)])
    sections = outcome.sections
    provenance = build_provenance(resolved, device=study.device, feature_fingerprints=study.feature_fingerprints(), seconds=clock.seconds,
                               inconclusive_reasons=sections.get("doubts", ()), notes=[*sections.get("remarks", ()), *study.cache.notes])  # fmt: skip
    record = build_record(outcome, study.subject_section(), provenance, limit=resolved.config.limit, exhibits=resolved.config.exhibits)
    return apply_policy(dataclasses.replace(record, training=training))


def describe_audit(x: Any, resolved: ResolvedConfig) -> str:
    """What an audit would do, as text: subject, assumptions, sources, metrics, features and the estimated time. Draws two samples."""
    return open_session(x, resolved.config, real=None, timer=StageTimer()).describe()
