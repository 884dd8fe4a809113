"""The few shapes that everything agrees on: Batch, Latent, Output, Source, Spec, State, Metric, Probe.

Torch is named here for type checkers only; importing this module costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from gandiag.record import Exhibit, Measurement

Prior = Literal["normal", "uniform", "unit", "truncated", "sphere"]
LabelEncoding = Literal["index", "onehot", "concat"]
SampleKind = Literal["image", "vector", "series"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; `low <= value <= high`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Assumption:
    """Something the file does not say and somebody had to. `source`: flag, file, metadata, batch-norm, default …"""

    what: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class LatentSpec:
    """What z looks like. `shape` is one latent without the batch axis: (dim,) or (dim, 1, 1)."""

    dim: int
    prior: Prior = "normal"
    shape: tuple[int, ...] = ()
    truncation: float = 2.0

    def __post_init__(self) -> None:
        if not self.shape:
            object.__setattr__(self, "shape", (self.dim,))


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What one sample looks like, without the batch axis. Images are (C, H, W). `range`: declared (low, high) or None."""

    kind: SampleKind
    shape: tuple[int, ...]
    range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class SampleSource:
    """Where samples come from: the real data, or the generator under named conditions.

    `name` is the role that metrics ask for: "real", "fake", "fake@0.02" (a latent scale), "fake@trained" …
    """

    name: str
    scale: float = 1.0
    bn: str = "eval"
    n: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples on their way through the engine. Row i of everything belongs to sample `indices[i]`."""

    samples: Tensor  # (B, *shape) float32, in the declared range
    indices: Tensor  # (B,) int64
    labels: Tensor | None = None  # (B,) int64
    features: Mapping[str, Tensor] = field(default_factory=dict)  # view name -> (B, D) float32 on the CPU


@runtime_checkable
class Accumulator(Protocol):
    """A running statistic. Any batching, order or sharding of the same samples gives the same result."""

    def update(self, batch: Batch) -> None: ...
    def merge(self, other: Self) -> None: ...
    def result(self) -> Any: ...


@runtime_checkable
class Statistic(Protocol):
    """What to accumulate; frozen and hashable by value, so that equal specs share one state."""

    @property
    def view(self) -> str: ...
    def start(self) -> Accumulator: ...


Needs = Mapping[str, frozenset[Any]]  # role -> specs


@dataclass(frozen=True, slots=True)
class MetricResult:
    """What a metric or probe found: measurements by key, whole sections of the Record, and things to look at."""

    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    sections: Mapping[str, Any] = field(default_factory=dict)
    exhibits: tuple[Exhibit, ...] = ()


@runtime_checkable
class Metric(Protocol):
    """One idea. A frozen dataclass whose fields are its parameters."""

    @property
    def key(self) -> str: ...
    def needs(self) -> Needs: ...
    def measure(self, results: Any) -> MetricResult: ...


@runtime_checkable
class Probe(Protocol):
    """What must call the generator itself. Run by the engine, recorded like a metric."""

    @property
    def key(self) -> str: ...
    def probe(self, generator: Any, context: Any) -> MetricResult: ...
