"""One audit, prepared: subject, real data, features and plan. How its streams start, and what its probes ask the generator."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gandiag.checkpoints.architectures.sampling_controls import get_sampling_settings
from gandiag.checkpoints.batchnorm.latent_scale import estimate_trained_scale
from gandiag.config import AuditConfig
from gandiag.errors import ConfigError, SourceError
from gandiag.features.cache import CachedRealFeatures, FeatureCache
from gandiag.features.extractors import default_features
from gandiag.features.image_statistics import ASPECTS
from gandiag.features.torch_fidelity import has_local_weights
from gandiag.features.views import FeatureView, embed_batch, make_views, noise_seed_for
from gandiag.interfaces import Assumption, Batch, SampleSource
from gandiag.pipeline.build_record import LatentScale, build_subject_section
from gandiag.pipeline.discriminator_probe import DualityGapPlan, plan_duality_gap
from gandiag.pipeline.engine import BatchFactory, StageTimer, required_views
from gandiag.pipeline.plan import INCEPTION_METRICS, AuditPlan, MetricContext, make_audit_plan
from gandiag.pipeline.subject import AuditSubject, open_real_data, open_subject
from gandiag.record import Measurement
from gandiag.sampling.sources import SampleSet

SMOKE_TEST_SAMPLES = 16  # samples that are drawn and embedded before the run, to fail early and to tell the time
READ_BATCH_SIZE = 128  # samples of a set that are read and embedded at a time


@dataclass(slots=True)
class AuditSession:
    """Everything that an audit needs once its inputs are open. `seconds_per_sample`: (drawing, embedding), from the smoke test."""

    config: AuditConfig
    subject: AuditSubject
    real: SampleSet | None
    views: dict[str, FeatureView]
    plan: AuditPlan
    trained_scale: LatentScale | None
    assumptions: tuple[Assumption, ...]
    seconds_per_sample: tuple[float, float] = (0.0, 0.0)
    not_measured: dict[str, Measurement] = field(default_factory=dict)
    cache: FeatureCache = field(default_factory=FeatureCache.default)
    duality_gap_plan: DualityGapPlan | None = None

    @property
    def device(self) -> str:
        return "cpu" if self.subject.sampler is None else str(self.subject.sampler.device)

    def n_samples(self, role: str) -> int:
        """Samples in the stream of a role."""
        if role != "real":
            return self.plan.sources[role].n
        return 0 if self.real is None else min(2 * self.plan.context.n, self.real.n)

    def batch_factory(self, role: str, needs: Mapping[str, frozenset[Any]]) -> BatchFactory:
        """A function that starts the stream of a role, each batch embedded once per view that somebody needs."""
        views = self.get_views(required_views(needs[role]))
        if role == "real":
            assert self.real is not None
            known = CachedRealFeatures(self.real, views, self.subject.output, self.n_samples(role), self.cache)
            return lambda: known.batches(
                READ_BATCH_SIZE, with_samples=any(spec.view == "samples" for spec in needs[role])
            )
        size = READ_BATCH_SIZE if self.subject.sampler is None else self.subject.sampler.batch_size

        def start() -> Iterator[Batch]:
            for batch in self.subject.batches(
                self.plan.sources[role], size, seed=self.config.seed, only_class=self.config.class_
            ):
                yield embed_batch(batch, views, self.subject.output, noise_seed=noise_seed_for(role))

        return start

    def get_views(self, names: Sequence[str]) -> list[FeatureView]:
        """The views of these names; a level of glass shares the extractor of its clear view."""
        for name in names:
            clear, _, level = name.partition("+")
            if name not in self.views:
                self.views[name] = FeatureView(name, self.views[clear].extractor, int(level))
        return [self.views[name] for name in names]

    def feature_fingerprints(self) -> dict[str, str]:
        """View -> what exactly was computed: weights, resolution, version."""
        return {name: view.fingerprint for name, view in self.views.items()}

    def subject_section(self) -> dict[str, Any]:
        """The record's `subject`."""
        sampler = self.subject.sampler
        latent = None if sampler is None else sampler.latent
        return build_subject_section(
            self.subject.facts,
            self.subject.output,
            latent=latent,
            scale=self.config.scale,
            trained_scale=self.trained_scale,
            assumptions=self.assumptions,
            classes=self.subject.classes,
            notes=self.subject.notes,
            sampling_settings=None if sampler is None else get_sampling_settings(sampler.module),
        )

    def estimated_seconds(self) -> float:
        """How long the run will take, about."""
        draw, look = self.seconds_per_sample
        fake, real = sum(source.n for source in self.plan.sources.values()), self.n_samples("real")
        return (
            (fake * (draw + look) + real * look) * 1.2
            + 3
            + (self.duality_gap_plan.estimated_seconds if self.duality_gap_plan else 0.0)
        )

    def summary(self) -> str:
        """What is about to run and how long it will take, as one line."""
        fake, real = sum(source.n for source in self.plan.sources.values()), self.n_samples("real")
        against = f" against {real:,} real ones" if real else ""
        return f"{fake:,} samples{against}, features {self.plan.context.view}, on {self.device}: about {self.estimated_seconds():.0f} s"

    def describe(self) -> str:
        """The plan as text, for --dry-run."""
        facts, output = self.subject.facts, self.subject.output
        rows = [
            ("subject", f"{facts.get('path') or 'a live object'}: {facts.get('family')}, {output.kind} {output.shape}")
        ]
        rows += [("assumed", f"{entry.what}: {entry.value} ({entry.source})") for entry in self.assumptions]
        rows += [
            ("source", f"{role}: {source.n:,} samples, scale {source.scale:g}, batch norm {source.bn}")
            for role, source in self.plan.sources.items()
        ]
        rows += [
            (
                "real",
                "none"
                if self.real is None
                else f"{self.n_samples('real'):,} of {self.real.n:,} samples of {self.real.name}",
            )
        ]
        rows += [("features", f"{name} ({mark})") for name, mark in self.feature_fingerprints().items()]
        rows += [("metrics", ", ".join(metric.key for metric in self.plan.metrics)), ("estimate", self.summary())]
        return "\n".join(f"{name:<10}{text}" for name, text in rows)


def open_session(x: Any, config: AuditConfig, *, real: Any = None, timer: StageTimer | None = None) -> AuditSession:
    """Open the inputs, decide the plan, and try a few samples: whatever can fail cheaply fails here."""
    timer = timer or StageTimer()
    with timer.stage("load"):
        subject = open_subject(x, config)
        _demand_class(subject, config)
    with timer.stage("real data"):
        given = config.real if real is None else real
        data = None if given is None else open_real_data(given, config, subject.output)
    with timer.stage("features"):
        name = config.features or default_features(subject.output)
        names, unmeasured = _wanted(name, config, subject)
        names += [
            aspect for aspect in ASPECTS if subject.output.kind == "image" and data is not None and aspect != name
        ]
        views = make_views(
            names,
            subject.output,
            device="cpu" if subject.sampler is None else subject.sampler.device,
            download=config.download,
            inception_weights=config.inception_weights,
        )
    trained = None
    if subject.sampler is not None:
        found = estimate_trained_scale(subject.sampler.generator)  # type: ignore[arg-type]
        trained = None if found is None else LatentScale(found.value, found.low, found.high, found.source)
    study = AuditSession(
        config,
        subject,
        data,
        {view.name: view for view in views},
        _plan(name, config, subject, data, trained),
        trained,
        (*subject.assumptions, *(() if data is None else data.assumptions(subject.output))),
        not_measured=unmeasured,
    )
    with timer.stage("smoke test"):
        study.seconds_per_sample = _smoke(study)
    with timer.stage("discriminator"):
        study.duality_gap_plan = plan_duality_gap(subject.sampler, config, has_real_data=data is not None)
    return study


def _demand_class(subject: AuditSubject, config: AuditConfig) -> None:
    if config.class_ is None or subject.sampler is None:
        return
    if subject.classes is None:
        raise ConfigError(
            f"--class is {config.class_}, and this generator has no classes",
            "leave --class out, or pass --classes and --condition",
        )
    if config.class_ >= subject.classes:
        raise ConfigError(
            f"--class is {config.class_}, and there are {subject.classes} classes",
            f"choose from 0 to {subject.classes - 1}",
        )


def _wanted(name: str, config: AuditConfig, subject: AuditSubject) -> tuple[list[str], dict[str, Measurement]]:
    """The views to build, and the Inception metrics that are not measured, each with its reason."""
    names, unmeasured = [name], {}
    on_gpu = subject.sampler is not None and subject.sampler.device.type != "cpu"
    for metric, (view, key) in INCEPTION_METRICS.items():
        if metric in config.metrics or (
            subject.output.kind == "image"
            and on_gpu
            and has_local_weights("inception-v3-compat", config.inception_weights)
        ):
            names.append(view)
        elif subject.output.kind == "image":
            unmeasured[key] = Measurement.missing(
                f"needs Inception's weights: --metrics {metric} (with --download or --inception-weights FILE)"
            )
    return names, unmeasured


def _plan(
    view: str, config: AuditConfig, subject: AuditSubject, data: SampleSet | None, trained: LatentScale | None
) -> AuditPlan:
    device = "cpu" if subject.sampler is None else subject.sampler.device.type
    n = subject.available_samples(config.n_samples(device))
    if data is not None and config.n is None:
        n = min(n, max(2, data.n // 2))  # more generated samples than half the real ones would be drawn for nothing
    if n < 2:
        raise SourceError(f"{n} sample cannot be judged", "give at least 100")
    sampled = SampleSource("fake", scale=config.scale, bn=config.bn, n=n)
    sources = {"fake": sampled}
    if trained is not None and not trained.low <= config.scale <= trained.high:
        other = f"fake@{config.scale:g}"
        sources = {
            "fake": dataclasses.replace(sampled, scale=trained.value),
            other: dataclasses.replace(sampled, name=other),
        }
    conditional = subject.classes is not None and config.class_ is None
    names = () if data is None else data.class_names or ()
    question = MetricContext(view, n, config.seed, subject.output, data is not None, conditional, names, tuple(sources))
    return make_audit_plan(question, sources, config.metrics)


def _smoke(study: AuditSession) -> tuple[float, float]:
    """Draw and embed a few samples. Returns seconds per sample for each; raises what the run would have raised."""
    fake = study.plan.sources["fake"]
    start = time.perf_counter()
    batch = next(
        iter(
            study.subject.batches(
                dataclasses.replace(fake, n=min(SMOKE_TEST_SAMPLES, fake.n)),
                SMOKE_TEST_SAMPLES,
                seed=study.config.seed,
                only_class=study.config.class_,
            )
        )
    )
    drawn = time.perf_counter()
    embed_batch(batch, list(study.views.values()), study.subject.output)
    done = time.perf_counter()
    if study.real is not None:
        next(iter(study.real.iter_batches(2, output=study.subject.output, limit=study.n_samples("real"))))
    count = max(1, len(batch.indices))
    return (drawn - start) / count, (done - drawn) / count
