"""What an extractor's factory is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from gandiag.errors import FeatureError
from gandiag.features.view_names import ViewName
from gandiag.interfaces import OutputSpec


@dataclass(frozen=True, slots=True)
class ExtractorRequest:
    """`view`: the parsed name. `output`: what the samples look like. `download`: the network may be used."""

    view: ViewName
    output: OutputSpec
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    download: bool = False
    inception_weights: str | None = None

    def require_images(self) -> None:
        """FeatureError unless the samples are images."""
        if self.output.kind != "image":
            raise FeatureError(
                f"the features {self.view} need images, and these samples are {self.output.kind}s",
                "use identity for vectors, series for series",
            )
