"""From what was measured to an (unjudged) Record: subject, provenance, exhibits within their budget."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gandiag.config import ResolvedConfig
from gandiag.exhibits.images import limit_total_size
from gandiag.interfaces import Assumption, Estimate, LatentSpec, MetricResult, OutputSpec
from gandiag.record import Measurement, Record, Score

REPORTED_PACKAGES = ("gandiag", "torch", "numpy", "scipy", "scikit-learn")
RECORD_SECTIONS = ("profile", "aspects", "modes", "response", "game")


@dataclasses.dataclass(frozen=True, slots=True)
class LatentScale:
    """The latent scale that the file says it was trained at, and where it says so."""

    value: float
    low: float
    high: float
    source: str


def build_subject_section(
    facts: Mapping[str, Any],
    output: OutputSpec,
    *,
    latent: LatentSpec | None = None,
    scale: float = 1.0,
    trained_scale: LatentScale | None = None,
    assumptions: Sequence[Assumption] = (),
    classes: int | None = None,
    notes: Sequence[Any] = (),
    sampling_settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record's `subject`: facts of the file, latent (with `knobs`: psi and noise), output, and everything that had to be assumed."""
    shown = None
    if latent is not None:
        shown = {
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
        "latent": shown,
        "output": {
            "kind": output.kind,
            "shape": list(output.shape),
            "range": None if output.range is None else list(output.range),
        },
        "classes": classes,
        "assumptions": [dataclasses.asdict(entry) for entry in assumptions],
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
    """Versions, device, seed, settings with their sources, features with their fingerprints, seconds per stage. No host or user names."""
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
    result: MetricResult, subject: Mapping[str, Any], provenance: Mapping[str, Any], *, limit: float, exhibits: bool
) -> Record:
    """A Record that still has to be judged."""
    sections = dict(result.sections)
    score = dataclasses.replace(sections.get("score") or Score(None, None, None, basis="degeneracy"), limit=limit)
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
    value: float | Estimate, *, n: int = 0, unit: str = "", reason: str = "a fact of the file"
) -> Measurement:
    """A measurement that has no floor, because it is no statistic of the samples."""
    if isinstance(value, Estimate):
        return Measurement(value.value, value.low, value.high, unit=unit, n=n, reason=reason)
    return Measurement(value, unit=unit, n=n, reason=reason)


def package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "source"
