"""Truncation: the knob that draws styles towards their mean, where a generator has one.

A family holds one Psi, and passes its styles through it (in networks that truncate otherwise: reads `self.psi.value`):

    self.psi = Psi()
    w = self.psi(self.mapping(z), self.w_avg)          # Karras et al. 2019, eq. in section 3.2: mean + psi (w - mean)

Which psi it is, --psi says, and the sweep of the response where z's scale does nothing; see `knobs.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn


class Truncation(nn.Module):
    """psi in [0, 1], or beyond: 1 is the network as trained, 0 the mean style alone."""

    def __init__(self) -> None:
        super().__init__()
        self.value = 1.0

    def forward(self, w: Tensor, mean: Tensor | Callable[[], Tensor]) -> Tensor:
        """w (B, ..., W) drawn towards `mean` (broadcast over w); a mean that takes work is passed as a function, and called when needed."""
        if self.value == 1.0:
            return w
        centre = (mean if isinstance(mean, Tensor) else mean()).to(w)
        return centre + self.value * (w - centre)


def find_truncation_layers(module: nn.Module) -> Iterator[Truncation]:
    """Every truncation knob of a network: none, or one."""
    return (part for part in module.modules() if isinstance(part, Truncation))
