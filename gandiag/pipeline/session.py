"""An audit with its inputs opened and its plan made: subject, real data, feature views, smoke test, time estimate."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gandiag.checkpoints.architectures.sampling_controls import get_sampling_settings
from gandiag.config import AuditConfig
from gandiag.errors import ConfigError, SourceError
from gandiag.features.cache import CachedRealFeatures, FeatureCache
from gandiag.features.extractors import default_features
from gandiag.features.image_statistics import ASPECTS
from gandiag.features.torch_fidelity import has_local_weights
from gandiag.features.views import FeatureView, embed_batch, make_views, noise_seed_for
from gandiag.interfaces import Assumption, Batch, SampleSource
from gandiag.metrics.registry import INCEPTION_METRICS, MetricContext
from gandiag.pipeline.build_record import build_subject_section
from gandiag.pipeline.discriminator_probe import DualityGapPlan, plan_duality_gap
from gandiag.pipeline.engine import BatchFactory, StageTimer, required_views
from gandiag.pipeline.plan import AuditPlan, make_audit_plan
from gandiag.pipeline.real_size import open_subject_of_size
from gandiag.pipeline.subject import AuditSubject
from gandiag.pipeline.table_inputs import OpenTables, describe_vectors, fit_vectors, open_tables
from gandiag.record import Measurement
from gandiag.report.assumptions import assumption_label, assumption_source, assumption_value
from gandiag.sampling.shards import WHOLE, Shard
from gandiag.sampling.sources import SampleSet
from gandiag.sampling.tables.encoder import TableEncoder

SMOKE_TEST_SAMPLES = 16  # samples drawn and embedded before the run, to fail early and to estimate the time
READ_BATCH_SIZE = 128  # samples of a set that are read and embedded at a time


@dataclass(slots=True)
class AuditSession:
    """The open inputs and the plan of one audit. `seconds_per_sample`: (drawing, embedding), from the smoke test."""

    config: AuditConfig
    subject: AuditSubject
    real: SampleSet | None
    views: dict[str, FeatureView]
    plan: AuditPlan
    assumptions: tuple[Assumption, ...]
    seconds_per_sample: tuple[float, float] = (0.0, 0.0)
    not_measured: dict[str, Measurement] = field(default_factory=dict)
    cache: FeatureCache = field(default_factory=FeatureCache.default)
    duality_gap_plan: DualityGapPlan | None = None
    tables: OpenTables | None = None

    @property
    def device(self) -> str:
        return "cpu" if self.subject.sampler is None else str(self.subject.sampler.device)

    def n_samples(self, role: str) -> int:
        """Number of samples in the stream of a role."""
        if role != "real":
            return self.plan.sources[role].n
        return 0 if self.real is None else min(2 * self.plan.context.n, self.real.n)

    @property
    def batch_size(self) -> int:
        """Samples of the subject that are drawn and embedded at a time."""
        return READ_BATCH_SIZE if self.subject.sampler is None else self.subject.sampler.batch_size

    def batch_factory(self, role: str, needs: Mapping[str, frozenset[Any]], shard: Shard = WHOLE) -> BatchFactory:
        """A function that starts the stream of a role, each batch embedded once per required view.

        `shard`: only its batches.
        """
        views = self.get_views(required_views(needs[role]))
        if role == "real":
            assert self.real is not None
            cached = CachedRealFeatures(self.real, views, self.subject.output, self.n_samples(role), self.cache, shard)
            with_samples = any(spec.view == "samples" for spec in needs[role])
            return lambda: cached.batches(READ_BATCH_SIZE, with_samples=with_samples)
        source, config, batch_size = self.plan.sources[role], self.config, self.batch_size

        def start() -> Iterator[Batch]:
            batches = self.subject.batches(source, batch_size, seed=config.seed, only_class=config.class_, shard=shard)
            for batch in batches:
                yield embed_batch(batch, views, self.subject.output, noise_seed=noise_seed_for(role))

        return start

    def get_views(self, names: Sequence[str]) -> list[FeatureView]:
        """The views of these names; a degraded view shares the extractor of its undegraded one."""
        for name in names:
            base_name, _, level = name.partition("+")
            if name not in self.views:
                self.views[name] = FeatureView(name, self.views[base_name].extractor, int(level))
        return [self.views[name] for name in names]

    def feature_fingerprints(self) -> dict[str, str]:
        """View -> what exactly computed it: weights, resolution, version."""
        return {name: view.fingerprint for name, view in self.views.items()}

    def subject_section(self) -> dict[str, Any]:
        """The record's `subject`."""
        sampler = self.subject.sampler
        return build_subject_section(
            self.subject.facts,
            self.subject.output,
            latent=None if sampler is None else sampler.latent,
            scale=self.config.scale,
            trained_scale=self.subject.trained_scale,
            assumptions=self.assumptions,
            classes=self.subject.classes,
            notes=self.subject.notes,
            sampling_settings=None if sampler is None else get_sampling_settings(sampler.module),
        )

    def describe_unused_samples(self) -> list[str]:
        """A sentence for each set of samples of which only a part is compared."""
        used = self.plan.sources["fake"].n
        notes = list(() if self.real is None else self.real.remarks)
        samples = self.subject.samples
        if samples is not None and used < samples.n:
            why = "as set by -n or the budget"
            if self.config.n is None and self.real is not None and used == max(2, self.real.n // 2):
                why = f"half as many as the {self.real.n:,} real ones"
            notes.append(f"{used:,} of the {samples.n:,} generated samples were used: {why}")
        if self.real is not None and self.n_samples("real") < self.real.n:
            notes.append(
                f"{self.n_samples('real'):,} of the {self.real.n:,} real samples were used: "
                f"twice as many as the {used:,} generated ones"
            )
        return notes

    def estimated_seconds(self) -> float:
        """Approximate duration of the run."""
        draw, embed = self.seconds_per_sample
        n_fake, n_real = self._total_generated(), self.n_samples("real")
        passes = n_fake * (draw + embed) + n_real * embed
        duality_gap = self.duality_gap_plan.estimated_seconds if self.duality_gap_plan else 0.0
        return passes * 1.2 + 3 + duality_gap

    def summary(self) -> str:
        """One line on what will run and how long it will take."""
        n_real = self.n_samples("real")
        against = f" against {n_real:,} real ones" if n_real else ""
        samples = f"{self._total_generated():,} samples{against}"
        estimate = f"about {self.estimated_seconds():.0f} s"
        return f"{samples}, features {self.plan.context.view}, on {self.device}: {estimate}"

    def describe(self) -> str:
        """The plan as text, for --dry-run."""
        facts, output = self.subject.facts, self.subject.output
        path = facts.get("path") or "a live object"
        real = "none"
        if self.real is not None:
            real = f"{self.n_samples('real'):,} of {self.real.n:,} samples from {self.real.name}"
        rows = [
            ("subject", f"{path}: {facts.get('family')}, {output.kind} {output.shape}"),
            *(("assumed", _describe_assumption(entry)) for entry in self.assumptions),
            *(("source", _describe_source(role, source)) for role, source in self.plan.sources.items()),
            ("real", real),
            *(("features", f"{name} ({fingerprint})") for name, fingerprint in self.feature_fingerprints().items()),
            ("metrics", ", ".join(metric.key for metric in self.plan.metrics)),
            ("estimate", self.summary()),
        ]
        return "\n".join(f"{name:<10}{text}" for name, text in rows)

    def _total_generated(self) -> int:
        return sum(source.n for source in self.plan.sources.values())


def open_session(
    x: Any, config: AuditConfig, *, real: Any = None, holdout: Any = None, timer: StageTimer | None = None
) -> AuditSession:
    """Open the inputs, make the plan and draw a few samples, so that cheap failures come first."""
    timer = timer or StageTimer()
    with timer.stage("load"):
        subject = open_subject_of_size(x, config, config.real if real is None else real)
        _check_class(subject, config)
    with timer.stage("real data"):
        tables = open_tables(
            subject,
            config.real if real is None else real,
            config.holdout if holdout is None else holdout,
            config,
        )
        subject, real_set, encoder = tables.subject, tables.real, tables.encoder
    with timer.stage("features"):
        column_encoder = encoder or fit_vectors(real_set, subject.output, config)
        main_view = config.features or choose_features(subject, real_set, has_columns=column_encoder is not None)
        views, not_measured = _open_views(
            main_view, config, subject, column_encoder, has_real_data=real_set is not None
        )
    session = AuditSession(
        config,
        subject,
        real_set,
        views,
        _make_plan(main_view, config, subject, real_set, column_encoder),
        (
            *subject.assumptions,
            *(() if real_set is None else real_set.assumptions(subject.output)),
            *(() if encoder else describe_vectors(column_encoder, config)),
        ),
        not_measured=not_measured,
        tables=tables,
    )
    with timer.stage("smoke test"):
        session.seconds_per_sample = _run_smoke_test(session)
    with timer.stage("discriminator"):
        session.duality_gap_plan = plan_duality_gap(subject.sampler, config, has_real_data=real_set is not None)
    return session


def choose_features(subject: AuditSubject, real: SampleSet | None, *, has_columns: bool) -> str:
    """The features by kind of sample; log-mel spectra where the samples or the real data are sounds.

    SourceError for sounds of two rates.
    """
    if has_columns:
        return "table"
    sets = [part for part in (subject.samples, real) if part is not None]
    rates = {rate for part in sets if (rate := part.sample_rate) is not None}
    if len(rates) > 1:
        first, second = sorted(rates)
        raise SourceError(
            f"the samples and the real data have different rates: {first:,} and {second:,} Hz",
            "resample one of them to the rate of the other",
        )
    return f"logmel@{rates.pop()}" if rates else default_features(subject.output)


def _check_class(subject: AuditSubject, config: AuditConfig) -> None:
    """ConfigError for a --class that the generator does not have."""
    if config.class_ is None or subject.sampler is None:
        return
    if subject.classes is None:
        raise ConfigError(
            f"--class is {config.class_}, but this generator has no classes",
            "leave --class out, or pass --classes and --condition",
        )
    if config.class_ >= subject.classes:
        raise ConfigError(
            f"--class is {config.class_}, but there are only {subject.classes} classes",
            f"choose from 0 to {subject.classes - 1}",
        )


def _open_views(
    main_view: str,
    config: AuditConfig,
    subject: AuditSubject,
    encoder: TableEncoder | None,
    *,
    has_real_data: bool,
) -> tuple[dict[str, FeatureView], dict[str, Measurement]]:
    """The feature views by name, and the Inception metrics that will not be measured, each with its reason."""
    inception_views, not_measured = _choose_inception_views(config, subject)
    names = [main_view, *inception_views]
    if subject.output.kind == "image" and has_real_data:
        names += [aspect for aspect in ASPECTS if aspect != main_view]
    views = make_views(
        names,
        subject.output,
        device="cpu" if subject.sampler is None else subject.sampler.device,
        download=config.download,
        inception_weights=config.inception_weights,
        encoder=encoder,
    )
    return {view.name: view for view in views}, not_measured


def _choose_inception_views(config: AuditConfig, subject: AuditSubject) -> tuple[list[str], dict[str, Measurement]]:
    """Inception views: those asked for, and on a GPU those of images whose weights are on this disk."""
    views: list[str] = []
    not_measured: dict[str, Measurement] = {}
    is_image = subject.output.kind == "image"
    on_gpu = subject.sampler is not None and subject.sampler.device.type != "cpu"
    for metric, (view, key) in INCEPTION_METRICS.items():
        is_cheap = is_image and on_gpu and has_local_weights("inception-v3-compat", config.inception_weights)
        if metric in config.metrics or is_cheap:
            views.append(view)
        elif is_image:
            not_measured[key] = Measurement.missing(
                f"needs Inception weights: --metrics {metric} (with --download or --inception-weights FILE)"
            )
    return views, not_measured


def _make_plan(
    view: str, config: AuditConfig, subject: AuditSubject, real: SampleSet | None, encoder: TableEncoder | None
) -> AuditPlan:
    """Sample count, sources and metrics.

    Where --scale is not the trained scale, both are sampled; "fake" is the trained one.
    """
    device = "cpu" if subject.sampler is None else subject.sampler.device.type
    n = subject.available_samples(config.n_samples(device))
    if real is not None and config.n is None:
        n = min(n, max(2, real.n // 2))  # scores compare with half of the real samples, so more would not be used
    if n < 2:
        raise SourceError(f"{n} sample is too few for a verdict", "pass at least 100")
    fake = SampleSource("fake", scale=config.scale, bn=config.bn, n=n)
    sources = {"fake": fake}
    trained = subject.trained_scale
    if trained is not None and not trained.low <= config.scale <= trained.high:
        as_configured = f"fake@{config.scale:g}"
        sources = {
            "fake": dataclasses.replace(fake, scale=trained.value),
            as_configured: dataclasses.replace(fake, name=as_configured),
        }
    is_conditional = subject.classes is not None and config.class_ is None
    class_names = () if real is None else real.class_names or ()
    context = MetricContext(
        view,
        n,
        config.seed,
        subject.output,
        real is not None,
        is_conditional,
        class_names,
        tuple(sources),
        encoder=encoder if view == "table" else None,
        is_network=subject.sampler is not None,
        neighbors_max=config.n_neighbors(device),
    )
    return make_audit_plan(context, sources, config.metrics)


def _run_smoke_test(session: AuditSession) -> tuple[float, float]:
    """Draw and embed a few samples. Returns seconds per sample for each; raises what the run would raise."""
    subject, config = session.subject, session.config
    fake = session.plan.sources["fake"]
    source = dataclasses.replace(fake, n=min(SMOKE_TEST_SAMPLES, fake.n))
    start = time.perf_counter()
    batch = next(iter(subject.batches(source, SMOKE_TEST_SAMPLES, seed=config.seed, only_class=config.class_)))
    drawn = time.perf_counter()
    embed_batch(batch, list(session.views.values()), subject.output)
    embedded = time.perf_counter()
    if session.real is not None:
        next(iter(session.real.iter_batches(2, output=subject.output, limit=session.n_samples("real"))))
    count = max(1, len(batch.indices))
    return (drawn - start) / count, (embedded - drawn) / count


def _describe_assumption(entry: Assumption) -> str:
    return f"{assumption_label(entry)}: {assumption_value(entry)} ({assumption_source(entry)})"


def _describe_source(role: str, source: SampleSource) -> str:
    return f"{role}: {source.n:,} samples, scale {source.scale:g}, BatchNorm {source.bn}"
