"""PacGAN: D judges m samples at once. Source: Lin et al. 2018, arXiv:1712.04086, section 2.

    D(x_1, ..., x_m), all real or all generated, joined along the channels; only D's first layer grows, the loss is as before
"""

from __future__ import annotations

from torch import Tensor, nn

from gandiag.reference.objectives.contract import Remedy

SAMPLES = 2  # PacGAN2


class Pack(nn.Module):
    """Samples (B, C, ...) to packs (B / m, m C, ...) of neighbours; a rest that fills no pack is left out."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = samples

    def forward(self, x: Tensor) -> Tensor:
        packs = len(x) // self.samples
        return x[: packs * self.samples].reshape(packs, self.samples * x.shape[1], *x.shape[2:])


PACKING = Remedy("packing", f"D judges {SAMPLES} samples together", "Lin et al. 2018, arXiv:1712.04086", pack=SAMPLES, batchwise=True)
