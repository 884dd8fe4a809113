"""PacGAN: D judges m samples at once.

Source: Lin et al. 2018, arXiv:1712.04086, section 2. D(x_1, …, x_m) gets m samples, all real or all generated,
concatenated along the channels; only D's first layer grows, and the loss is unchanged.
"""

from __future__ import annotations

from torch import Tensor, nn

from gandiag.trainer.remedies.base import Remedy

DEFAULT_PACK_SIZE = 2  # PacGAN2


class PackSamples(nn.Module):
    """Samples (B, C, ...) to packs of m consecutive samples (B / m, m C, ...), dropping an incomplete last pack."""

    def __init__(self, pack_size: int) -> None:
        super().__init__()
        self.pack_size = pack_size

    def forward(self, x: Tensor) -> Tensor:
        packs = len(x) // self.pack_size
        return x[: packs * self.pack_size].reshape(packs, self.pack_size * x.shape[1], *x.shape[2:])


PACKING = Remedy(
    "packing",
    f"D judges {DEFAULT_PACK_SIZE} samples together",
    "Lin et al. 2018, arXiv:1712.04086",
    pack_size=DEFAULT_PACK_SIZE,
    uses_batch_statistics=True,
)
