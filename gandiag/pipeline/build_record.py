"""Builds the unjudged Record of an audit: subject, provenance, measurements, and exhibits within their size budget."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gandiag.checkpoints.batchnorm.latent_scale import TrainedScale
from gandiag.config import ResolvedConfig
from gandiag.exhibits.images import limit_total_size
from gandiag.interfaces import Assumption, Estimate, LatentSpec, MetricResult, OutputSpec
from gandiag.record import FACT_REASON, Measurement, Record, Score
from gandiag.report.assumptions import assumption_document

REPORTED_PACKAGES = ("gandiag", "torch", "numpy", "scipy", "scikit-learn")
RECORD_SECTIONS = ("profile", "aspects", "modes", "groups", "response", "game", "table")


def build_subject_section(
    facts: Mapping[str, Any],
    output: OutputSpec,
    *,
    latent: LatentSpec | None = None,
    scale: float = 1.0,
    trained_scale: TrainedScale | None = None,
    assumptions: Sequence[Assumption] = (),
    classes: int | None = None,
    notes: Sequence[object] = (),
    sampling_settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record's `subject`: facts about the file, the latent and how it is sampled, the output, all assumptions."""
    latent_section = None
    if latent is not None:
        latent_section = {
            "dim": latent.dim,
            "prior": latent.prior,
            "scale": scale,
            "trained_scale": None if trained_scale is None else dataclasses.asdict(trained_scale),
            **(sampling_settings or {}),
        }
    return {
        "path": None,
        "sha256": None,
        "loader": None,
        "family": None,
        "parameters": None,
        "weights": None,
        **facts,
        "latent": latent_section,
        "output": {
            "kind": output.kind,
            "shape": list(output.shape),
            "range": None if output.range is None else list(output.range),
        },
        "classes": classes,
        "assumptions": [assumption_document(entry) for entry in assumptions],
        "notes": [str(note) for note in notes],
    }


def build_provenance(
    resolved: ResolvedConfig,
    *,
    device: str,
    feature_fingerprints: Mapping[str, str],
    seconds: Mapping[str, float],
    inconclusive_reasons: Sequence[str],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Versions, device, seed, settings with their sources, feature fingerprints, seconds per stage.

    No host or user names.
    """
    settings = {entry.name: getattr(resolved.config, entry.name) for entry in dataclasses.fields(resolved.config)}
    config = {
        name: {"value": value, "source": resolved.sources.get(name, "default")} for name, value in settings.items()
    }
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: package_version(name) for name in REPORTED_PACKAGES},
        },
        "device": device,
        "seed": resolved.config.seed,
        "config": config,
        "features": dict(feature_fingerprints),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "doubts": list(inconclusive_reasons),
        "remarks": list(notes),
    }


def build_record(
    result: MetricResult,
    subject: Mapping[str, Any],
    provenance: Mapping[str, Any],
    *,
    limit: float,
    exhibits: bool,
    has_real: bool = False,
) -> Record:
    """A Record without a judgment: verdict "inconclusive", no kinds and no findings.

    `has_real`: real data were given, also where no score could be measured against them.
    """
    sections = dict(result.sections)
    unmeasured = Score(None, None, None, basis="referenced" if has_real else "degeneracy")
    score = dataclasses.replace(sections.get("score") or unmeasured, limit=limit)
    return Record(
        verdict="inconclusive",
        kinds=(),
        score=score,
        subject=subject,
        measurements=dict(sorted(result.measurements.items())),
        classes=tuple(sections.get("classes", ())),
        exhibits=limit_total_size(result.exhibits) if exhibits else (),
        provenance=provenance,
        **{name: sections.get(name, {}) for name in RECORD_SECTIONS},
    )


def measurement_without_floor(
    value: float | Estimate, *, n: int = 0, unit: str = "", reason: str = FACT_REASON
) -> Measurement:
    """A measurement that has no floor because it is not a statistic of the samples."""
    if isinstance(value, Estimate):
        return Measurement(value.value, value.low, value.high, unit=unit, n=n, reason=reason)
    return Measurement(value, unit=unit, n=n, reason=reason)


def package_version(package: str) -> str:
    """The installed version, or "source" for a checkout that is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "source"
