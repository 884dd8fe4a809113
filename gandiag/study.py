"""One audit, prepared: subject, real data, features and plan. How its streams start, and what its probes ask the generator."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gandiag.assemble import Scale, subject_of
from gandiag.config import AuditConfig
from gandiag.contracts import Assumption, Batch, Source
from gandiag.engine import Clock, Stream, views_of
from gandiag.errors import ConfigError, SourceError
from gandiag.features.aspects import ASPECTS
from gandiag.features.cache import FeatureCache, RealPass
from gandiag.features.extractors import default_features
from gandiag.features.fidelity import available
from gandiag.features.views import View, embed, make_views, salt_of
from gandiag.load.rebuild.knobs import knobs_of
from gandiag.opponent import Match, match_of
from gandiag.plan import INCEPTION, Plan, Question, plan_of
from gandiag.probes.trained_scale import trained_scale
from gandiag.record import Measurement
from gandiag.sample.streams import SampleSet
from gandiag.subjects import Subject, open_real, open_subject

SMOKE = 16  # samples that are drawn and embedded before the run, to fail early and to tell the time
BATCH = 128  # samples of a set that are read and embedded at a time


@dataclass(slots=True)
class Study:
    """Everything that an audit needs once its inputs are open. `seconds_per_sample`: (drawing, embedding), from the smoke test."""

    config: AuditConfig
    subject: Subject
    real: SampleSet | None
    views: dict[str, View]
    plan: Plan
    trained: Scale | None
    assumptions: tuple[Assumption, ...]
    seconds_per_sample: tuple[float, float] = (0.0, 0.0)
    unmeasured: dict[str, Measurement] = field(default_factory=dict)
    cache: FeatureCache = field(default_factory=FeatureCache.user)
    match: Match | None = None

    @property
    def device(self) -> str:
        return "cpu" if self.subject.sampler is None else str(self.subject.sampler.device)

    def total(self, role: str) -> int:
        """Samples in the stream of a role."""
        if role != "real":
            return self.plan.sources[role].n
        return 0 if self.real is None else min(2 * self.plan.question.n, self.real.n)

    def stream(self, role: str, needs: Mapping[str, frozenset[Any]]) -> Stream:
        """A function that starts the stream of a role, each batch embedded once per view that somebody needs."""
        views = self.seen(views_of(needs[role]))
        if role == "real":
            assert self.real is not None
            known = RealPass(self.real, views, self.subject.output, self.total(role), self.cache)
            return lambda: known.batches(BATCH, raw=any(spec.view == "samples" for spec in needs[role]))
        size = BATCH if self.subject.sampler is None else self.subject.sampler.batch_size

        def start() -> Iterator[Batch]:
            for batch in self.subject.batches(self.plan.sources[role], size, seed=self.config.seed, only_class=self.config.class_):
                yield embed(batch, views, self.subject.output, salt=salt_of(role))

        return start

    def seen(self, names: Sequence[str]) -> list[View]:
        """The views of these names; a level of glass shares the extractor of its clear view."""
        for name in names:
            clear, _, level = name.partition("+")
            if name not in self.views:
                self.views[name] = View(name, self.views[clear].extractor, int(level))
        return [self.views[name] for name in names]

    def fingerprints(self) -> dict[str, str]:
        """View -> what exactly was computed: weights, resolution, version."""
        return {name: view.fingerprint for name, view in self.views.items()}

    def section(self) -> dict[str, Any]:
        """The record's `subject`."""
        sampler = self.subject.sampler
        latent = None if sampler is None else sampler.latent
        return subject_of(self.subject.facts, self.subject.output, latent=latent, scale=self.config.scale, trained=self.trained,
                          assumptions=self.assumptions, classes=self.subject.classes, notes=self.subject.notes,
                          knobs=None if sampler is None else knobs_of(sampler.module))  # fmt: skip

    def seconds(self) -> float:
        """How long the run will take, about."""
        draw, look = self.seconds_per_sample
        fake, real = sum(source.n for source in self.plan.sources.values()), self.total("real")
        return (fake * (draw + look) + real * look) * 1.2 + 3 + (self.match.seconds if self.match else 0.0)

    def estimate(self) -> str:
        """What is about to run and how long it will take, as one line."""
        fake, real = sum(source.n for source in self.plan.sources.values()), self.total("real")
        against = f" against {real:,} real ones" if real else ""
        return f"{fake:,} samples{against}, features {self.plan.question.view}, on {self.device}: about {self.seconds():.0f} s"

    def describe(self) -> str:
        """The plan as text, for --dry-run."""
        facts, output = self.subject.facts, self.subject.output
        rows = [("subject", f"{facts.get('path') or 'a live object'}: {facts.get('family')}, {output.kind} {output.shape}")]
        rows += [("assumed", f"{entry.what}: {entry.value} ({entry.source})") for entry in self.assumptions]
        rows += [("source", f"{role}: {source.n:,} samples, scale {source.scale:g}, batch norm {source.bn}") for role, source in self.plan.sources.items()]
        rows += [("real", "none" if self.real is None else f"{self.total('real'):,} of {self.real.n:,} samples of {self.real.name}")]
        rows += [("features", f"{name} ({mark})") for name, mark in self.fingerprints().items()]
        rows += [("metrics", ", ".join(metric.key for metric in self.plan.metrics)), ("estimate", self.estimate())]
        return "\n".join(f"{name:<10}{text}" for name, text in rows)


def prepare(x: Any, config: AuditConfig, *, real: Any = None, clock: Clock | None = None) -> Study:
    """Open the inputs, decide the plan, and try a few samples: whatever can fail cheaply fails here."""
    clock = clock or Clock()
    with clock.stage("load"):
        subject = open_subject(x, config)
        _demand_class(subject, config)
    with clock.stage("real data"):
        given = config.real if real is None else real
        data = None if given is None else open_real(given, config, subject.output)
    with clock.stage("features"):
        name = config.features or default_features(subject.output)
        names, unmeasured = _wanted(name, config, subject)
        names += [aspect for aspect in ASPECTS if subject.output.kind == "image" and data is not None and aspect != name]
        views = make_views(names, subject.output, device="cpu" if subject.sampler is None else subject.sampler.device,
                           download=config.download, inception_weights=config.inception_weights)  # fmt: skip
    trained = None
    if subject.sampler is not None:
        found = trained_scale(subject.sampler.network)  # type: ignore[arg-type]
        trained = None if found is None else Scale(found.value, found.low, found.high, found.source)
    study = Study(config, subject, data, {view.name: view for view in views}, _plan(name, config, subject, data, trained), trained,
                  (*subject.assumptions, *(() if data is None else data.assumptions(subject.output))), unmeasured=unmeasured)  # fmt: skip
    with clock.stage("smoke test"):
        study.seconds_per_sample = _smoke(study)
    with clock.stage("discriminator"):
        study.match = match_of(subject.sampler, config, referenced=data is not None)
    return study


def _demand_class(subject: Subject, config: AuditConfig) -> None:
    if config.class_ is None or subject.sampler is None:
        return
    if subject.classes is None:
        raise ConfigError(f"--class is {config.class_}, and this generator has no classes", "leave --class out, or pass --classes and --condition")
    if config.class_ >= subject.classes:
        raise ConfigError(f"--class is {config.class_}, and there are {subject.classes} classes", f"choose from 0 to {subject.classes - 1}")


def _wanted(name: str, config: AuditConfig, subject: Subject) -> tuple[list[str], dict[str, Measurement]]:
    """The views to build, and the Inception metrics that are not measured, each with its reason."""
    names, unmeasured = [name], {}
    on_gpu = subject.sampler is not None and subject.sampler.device.type != "cpu"
    for metric, (view, key) in INCEPTION.items():
        if metric in config.metrics or (subject.output.kind == "image" and on_gpu and available("inception-v3-compat", config.inception_weights)):
            names.append(view)
        elif subject.output.kind == "image":
            unmeasured[key] = Measurement.missing(f"needs Inception's weights: --metrics {metric} (with --download or --inception-weights FILE)")
    return names, unmeasured


def _plan(view: str, config: AuditConfig, subject: Subject, data: SampleSet | None, trained: Scale | None) -> Plan:
    device = "cpu" if subject.sampler is None else subject.sampler.device.type
    n = subject.count(config.samples(device))
    if data is not None and config.n is None:
        n = min(n, max(2, data.n // 2))  # more generated samples than half the real ones would be drawn for nothing
    if n < 2:
        raise SourceError(f"{n} sample cannot be judged", "give at least 100")
    sampled = Source("fake", scale=config.scale, bn=config.bn, n=n)
    sources = {"fake": sampled}
    if trained is not None and not trained.low <= config.scale <= trained.high:
        other = f"fake@{config.scale:g}"
        sources = {"fake": dataclasses.replace(sampled, scale=trained.value), other: dataclasses.replace(sampled, name=other)}
    conditional = subject.classes is not None and config.class_ is None
    names = () if data is None else data.class_names or ()
    question = Question(view, n, config.seed, subject.output, data is not None, conditional, names, tuple(sources))
    return plan_of(question, sources, config.metrics)


def _smoke(study: Study) -> tuple[float, float]:
    """Draw and embed a few samples. Returns seconds per sample for each; raises what the run would have raised."""
    fake = study.plan.sources["fake"]
    start = time.perf_counter()
    batch = next(iter(study.subject.batches(dataclasses.replace(fake, n=min(SMOKE, fake.n)), SMOKE, seed=study.config.seed, only_class=study.config.class_)))
    drawn = time.perf_counter()
    embed(batch, list(study.views.values()), study.subject.output)
    done = time.perf_counter()
    if study.real is not None:
        next(iter(study.real.batches(2, fit=study.subject.output, limit=study.total("real"))))
    count = max(1, len(batch.indices))
    return (drawn - start) / count, (done - drawn) / count

