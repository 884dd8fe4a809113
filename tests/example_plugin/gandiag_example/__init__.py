"""One of each plug-in: metric, features, report and gate format, remedy, reader, network factory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from gandiag.errors import LoadError
from gandiag.features.extractors import ExtractorRequest
from gandiag.interfaces import MetricResult, Needs, OutputSpec
from gandiag.record import Measurement, Record
from gandiag.report import formatting
from gandiag.stats.subset import SubsetSpec
from gandiag.trainer.remedies.base import Loss, Remedy
from gandiag.verdict.gate import GateResult


@dataclass(frozen=True, slots=True)
class MedianGap:
    """Distance between the medians of real and generated features, in feature units; lower is better."""

    view: str
    n: int
    seed: int = 0
    referenced: bool = True
    key: str = "median_gap"

    def needs(self) -> Needs:
        kept = frozenset({SubsetSpec(self.view, self.n)})
        return {"real": kept, "fake": kept} if self.referenced else {}

    def measure(self, results: Any) -> MetricResult:
        if not self.referenced:
            return MetricResult({self.key: Measurement.missing("needs real data: --real")})
        real, fake = (results[role][SubsetSpec(self.view, self.n)].values for role in ("real", "fake"))
        gap = float((real.median(0).values - fake.median(0).values).norm())
        floor = float((real[::2].median(0).values - real[1::2].median(0).values).norm())
        return MetricResult(
            {self.key: Measurement(gap, floor=floor, unit="feature units", better="lower", n=len(fake))}
        )


class Corners:
    """The four corner pixels of an image, as features."""

    name, fingerprint = "corners", "corners:1"

    def __init__(self, output: OutputSpec) -> None:
        self.dim = 4 * output.shape[0]

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        return samples[:, :, :: samples.shape[2] - 1, :: samples.shape[3] - 1].flatten(1).float().cpu()  # (B, 4C)


def corners(request: ExtractorRequest) -> Corners:
    request.require_images()
    return Corners(request.output)


def one_line(record: Record) -> str:
    parts = (formatting.format_verdict, formatting.summarize_record, formatting.format_subject)
    return " ".join(part(record) for part in parts) + "\n"


def chat(gated: list[GateResult]) -> str:
    return (
        "\n".join(
            f"{int(one.code)} {formatting.escape_unprintable(one.subject)} {[check.state for check in one.checks]}"
            for one in gated
        )
        + "\n"
    )


def _smooth(real: Tensor, fake: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(real, torch.full_like(real, 0.9)) + softplus(fake).mean()


SMOOTHING = Remedy(
    "smoothing",
    "One-sided label smoothing",
    "Salimans et al. 2016, arXiv:1606.03498, section 3.4",
    loss=Loss("smoothed", _smooth, lambda real, fake: softplus(-fake).mean()),
)


class PlainText:
    """Weights as text: a header line, then one tensor per line: name, shape, numbers."""

    def takes(self, head: bytes, path: Path) -> bool:
        return head.startswith(b"weights in plain text\n")

    def read(self, path: Path) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        try:
            for line in path.read_text(encoding="utf-8").splitlines()[1:]:
                name, shape, *numbers = line.split()
                found[name] = torch.tensor([float(number) for number in numbers]).reshape(
                    [int(size) for size in shape.split("x")]
                )
        except (ValueError, RuntimeError) as broken:
            raise LoadError(f"{path.name} is damaged: {str(broken).splitlines()[0]}", "copy it again") from None
        return found


PLAIN_TEXT = PlainText()


def tiny() -> nn.Module:
    """For --model gandiag_example:tiny."""
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
