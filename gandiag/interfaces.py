"""Data classes and protocols shared by all packages. Imports torch only for type checkers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from gandiag.record import Exhibit, Measurement

Prior = Literal["normal", "uniform", "unit", "truncated", "sphere"]
LabelEncoding = Literal["index", "onehot", "concat"]
SampleKind = Literal["image", "vector", "series", "table"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; `low <= value <= high`."""

    value: float
    low: float
    high: float


UNDECIDED = "undecided"  # source of an assumption that the statistics leave open: no collapse verdict rests on it

IMPOSSIBLE_MISMATCH = 1e9  # of a candidate that does not run

AssumptionOutcome = Literal["settled", "default_kept", "same_outputs", "none_fits", "not_ranked"]


@dataclass(frozen=True, slots=True)
class BatchNormFit:
    """How well a value agrees with the stored BatchNorm statistics, and how much worse the next best value does.

    `outcome`: "settled" (the runner-up is clearly worse, or the source says "undecided"), "default_kept" (the default
    stands although another value fits about as well), "same_outputs" (all other values give the same samples),
    "none_fits" (no value is plausible), "not_ranked" (`gandiag inspect` skipped a ranking that takes seconds).
    """

    mismatch: float | None = None
    runner_up: str | None = None
    runner_up_mismatch: float | None = None
    outcome: AssumptionOutcome = "settled"

    @property
    def ratio(self) -> float | None:
        """How many times worse the runner-up fits; None without a possible one, or where the best fit is exact."""
        if not self.mismatch or self.runner_up_mismatch is None or self.runner_up_mismatch >= IMPOSSIBLE_MISMATCH:
            return None
        return self.runner_up_mismatch / self.mismatch


@dataclass(frozen=True, slots=True)
class Assumption:
    """One setting that the file does not fully state, the value that was taken, and on what grounds.

    Data only: report/assumptions.py puts it into words.

    `setting`: the name of an AuditConfig field where one exists ("latent_dim", "prior", "activation"), else a short key
    ("mapping"). `value`: plain data (number, string, tuple). `source`: "flag", "spec", "file", "metadata", "shapes",
    "batch-norm", "family", "hub", "gandiag", "default" or UNDECIDED; `origin` narrows it ("config.json", "BigGAN").
    `layers`: the state-dict names concerned. `note`: one short phrase for what the value does not say.
    """

    setting: str
    value: Any
    source: str = "default"
    origin: str = ""
    layers: tuple[str, ...] = ()
    fit: BatchNormFit | None = None
    note: str = ""

    @property
    def undecided(self) -> bool:
        """Do the statistics leave this open?"""
        return self.source == UNDECIDED


@dataclass(frozen=True, slots=True)
class LatentSpec:
    """Size and distribution of z. `shape`: one latent without the batch axis, (dim,) or (dim, 1, 1)."""

    dim: int
    prior: Prior = "normal"
    shape: tuple[int, ...] = ()
    truncation: float = 2.0

    def __post_init__(self) -> None:
        if not self.shape:
            object.__setattr__(self, "shape", (self.dim,))


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """Kind and shape of one sample without batch axis; images are (C, H, W). `range`: declared (low, high) or None.

    Rows of a table are (features,), as its encoder makes them.
    """

    kind: SampleKind
    shape: tuple[int, ...]
    range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class SampleSource:
    """A source of samples: the generator at a latent scale and in a BatchNorm mode.

    `name`: the role that metrics refer to: "fake", or "fake@0.02" for another latent scale.
    """

    name: str
    scale: float = 1.0
    bn: str = "eval"
    n: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples and their features. Row i of every tensor belongs to sample `indices[i]`."""

    samples: Tensor  # (B, *shape) float32, in the declared range
    indices: Tensor  # (B,) int64
    labels: Tensor | None = None  # (B,) int64
    features: Mapping[str, Tensor] = field(default_factory=dict)  # view name -> (B, D) float32 on the CPU


@runtime_checkable
class Accumulator(Protocol):
    """A running statistic, whose result does not depend on batching, order or sharding of the samples."""

    def update(self, batch: Batch) -> None: ...
    def merge(self, other: Self) -> None: ...
    def result(self) -> Any: ...


Needs = Mapping[str, frozenset[Any]]  # role -> specs: hashable by value, with `view` and `start() -> Accumulator`


@dataclass(frozen=True, slots=True)
class MetricResult:
    """The result of a metric or probe: measurements by key, sections of the Record, and exhibits."""

    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    sections: Mapping[str, Any] = field(default_factory=dict)
    exhibits: tuple[Exhibit, ...] = ()


@runtime_checkable
class Metric(Protocol):
    """A metric: a frozen dataclass whose fields are its parameters.

    `needs`: what to accumulate, by role. `measure`: the result from what was accumulated, results[role][spec].
    """

    @property
    def key(self) -> str: ...
    def needs(self) -> Needs: ...
    def measure(self, results: Any) -> MetricResult: ...
