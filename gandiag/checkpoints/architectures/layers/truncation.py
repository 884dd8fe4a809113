"""The truncation trick: pulls styles towards their mean, in generators that have one.

An architecture holds one Truncation and passes its styles through it (networks that truncate otherwise read
`self.psi.value`):

    self.psi = Truncation()
    w = self.psi(self.mapping(z), self.w_avg)          # Karras et al. 2019, section 3.2: mean + psi (w - mean)

psi is set by --psi, and by the latent sweep where scaling z has no effect; see `sampling_controls.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn


class Truncation(nn.Module):
    """psi, usually in [0, 1]: 1 is the network as trained, 0 the mean style alone."""

    def __init__(self) -> None:
        super().__init__()
        self.value = 1.0

    def forward(self, w: Tensor, mean: Tensor | Callable[[], Tensor]) -> Tensor:
        """w (B, ..., W) pulled towards `mean` (broadcast over w).

        A function passed as the mean is called only if needed.
        """
        if self.value == 1.0:
            return w
        center = (mean if isinstance(mean, Tensor) else mean()).to(w)
        return center + self.value * (w - center)


def find_truncation_layers(module: nn.Module) -> Iterator[Truncation]:
    """The truncation layers of a network: none or one."""
    return (part for part in module.modules() if isinstance(part, Truncation))
