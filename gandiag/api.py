"""The two public verbs, load() and audit(): the only place where measuring and judging meet."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from gandiag.assemble import provenance_of, record_of
from gandiag.config import Resolved, resolve
from gandiag.engine import Clock, Progress, measure, merged, silent, union, walk
from gandiag.judge.judge import judge
from gandiag.load.generator import load_network
from gandiag.plan import deeper
from gandiag.probing import look
from gandiag.record import Record, plain
from gandiag.sample.sampler import Sampler
from gandiag.study import prepare
from gandiag.subjects import sampler_of
from gandiag.training import losses

Say = Callable[[str], None]


def load(path: str | os.PathLike[str], **settings: Any) -> Sampler:
    """A generator from a checkpoint: `.sample(n, seed=0, scale=1.0, labels=None)` gives a CPU tensor (n, …) in data units.

    `settings`: the fields of AuditConfig that say how to read the file (latent_dim, classes, model, trust …). Nothing in the
    file is executed without `trust=True`. Raises LoadError with what is missing.
    """
    config = resolve(settings).config
    return sampler_of(load_network(path, config), config)


def audit(x: Any, real: Any = None, *, progress: Progress = silent, say: Say | None = None, **settings: Any) -> Record:
    """Has this generator collapsed? The judged Record; `print(record)` shows it.

    x, real: path, Generator, nn.Module (with latent_dim=…), array, tensor or Dataset. `settings`: fields of AuditConfig.
    Cost: one pass over n generated and 2n real samples through the features, then distances, O(n² D).
    Raises LoadError, SourceError, OutputError or FeatureError when it cannot be audited; the model is left as it was.
    """
    if isinstance(real, (str, os.PathLike)):
        settings["real"], real = str(real), None
    return audit_subject(x, resolve(settings), real=real, progress=progress, say=say)


def audit_subject(x: Any, resolved: Resolved, *, real: Any = None, progress: Progress = silent, say: Say | None = None) -> Record:
    """`audit` with resolved settings: cheap failures first, then the passes, the probes and the judgement."""
    clock = Clock()
    training = None if resolved.config.log is None else plain(losses(resolved.config.log, seed=resolved.config.seed).document)
    study = prepare(x, resolved.config, real=real, clock=clock)
    if say is not None:
        say(study.estimate())
    needs = union(study.plan.metrics)
    results: dict[str, dict[Any, Any]] = {}
    while needs:  # a second and third round only where low fidelity asks for a look through frosted glass
        streams = {role: (study.stream(role, needs), study.total(role)) for role in needs}
        for role, found in walk(needs, streams, clock=clock, progress=progress).items():
            results.setdefault(role, {}).update(found)
        needs = deeper(study.plan, results)
    outcome = merged([measure(study.plan.metrics, results, clock=clock, progress=progress), *look(study, results, clock=clock, progress=progress)])
    sections = outcome.sections
    provenance = provenance_of(resolved, device=study.device, features=study.fingerprints(), seconds=clock.seconds,
                               doubts=sections.get("doubts", ()), remarks=[*sections.get("remarks", ()), *study.cache.notes])  # fmt: skip
    record = record_of(outcome, study.section(), provenance, limit=resolved.config.limit, exhibits=resolved.config.exhibits)
    return judge(dataclasses.replace(record, training=training))


def plan(x: Any, resolved: Resolved) -> str:
    """What an audit would do, as text: subject, assumptions, sources, metrics, features and the estimated time. Draws two samples."""
    return prepare(x, resolved.config, real=None, clock=Clock()).describe()
