"""FastGAN, in the layout of its authors' repository and in that of projected-gan.

Liu et al. 2021, "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis", section 3.1
and figure 3: a transposed convolution to 4x4, upsampling blocks with gated linear units, BatchNorm and one noise image
each, and maps of 4 to 32 pixels that excite the channels of maps at sixteen times their resolution. Specific to the
repository: a second, small image for the discriminator (ignored here), tanh only at 1024 pixels. Sauer et al. 2021,
"Projected GANs Converge Faster", normalize z and use no tanh.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.assumptions import (
    NORMALIZED_LATENT,
    assume_batchnorm_mode,
    assume_image,
    assume_latent,
    assume_resolution,
)
from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.layers.factory import make_conv
from gandiag.checkpoints.architectures.layers.noise_input import NoiseInjection
from gandiag.checkpoints.architectures.shape_check import check_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

_RESOLUTIONS = (8, 16, 32, 64, 128, 256, 512, 1024)
_EXCITATION_RATIO = 16  # a map excites the map at this many times its resolution
_TANH_RESOLUTION = 1024
_BATCHNORM_NOTE = "the repository never calls eval() and samples with batch statistics: --bn batch"
_AVERAGING_NOTE = "the repository copies the average into g before it writes a file without g_ema"


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A FastGAN generator.

    ArchitectureMismatch unless the keys are [synthesis.]init.init, feat_<N>, se_<N> and to_big.
    """
    projected = any(name.startswith("synthesis.init.init.0.") for name in weights.tensors)
    prefix = "synthesis." if projected else ""
    tensors = {name.removeprefix(prefix): tensor for name, tensor in weights.tensors.items()}
    _check_names(tensors, projected)
    with torch.device("meta"):
        net = FastGan(tensors, projected=projected)
    latent_dim = require_shape(tensors, "init.init.0.weight", 4)[0]
    shape = (net.channels, net.resolution, net.resolution)
    check_output_shape(net, latent_dim, shape)
    load_strict(net, tensors)
    family = "projected-gan" if projected else "FastGAN"
    latent, latent_assumptions = assume_latent(
        latent_dim, config.prior, family, prior_note=NORMALIZED_LATENT if projected else ""
    )
    output, range_assumption = assume_image(
        shape, config.output_range, family, note=_describe_output(net.use_tanh, projected)
    )
    assumptions = (
        *latent_assumptions,
        assume_resolution(net.resolution, "nearest-neighbor upsampling"),
        range_assumption,
        *(() if projected else _state_conventions(weights, config)),
    )
    name = "FastGAN (projected-gan)" if projected else "FastGAN"
    return RebuiltGenerator(name, net, latent, output, assumptions=assumptions)


def _check_names(tensors: Mapping[str, Tensor], projected: bool) -> None:
    has_blocks = any(name.startswith("feat_8.") for name in tensors)
    if not has_blocks or not {"init.init.0.weight", "to_big.weight"} <= set(tensors):
        raise ArchitectureMismatch("")
    if projected and ("embed.weight" in tensors or "feat_8.conv1.weight" in tensors):
        raise LoadError(
            "the file holds a class-conditional FastGAN of projected-gan, which gandiag does not rebuild",
            "build it with its own code (autonomousvision/projected-gan): --model pkg.mod:factory [--init k=v]; "
            "or audit a folder of its samples",
        )


def _describe_output(use_tanh: bool, projected: bool) -> str:
    if use_tanh:
        return "tanh"
    return "without tanh" if projected else f"without tanh, which it has at {_TANH_RESOLUTION} pixels only"


def _state_conventions(weights: Weights, config: AuditConfig) -> tuple[Assumption, ...]:
    """What a user of the repository's files should know: how averaged weights are stored, and how it samples."""
    is_averaged = {"g", "d"} <= set(weights.extra_settings) and "g_ema" not in weights.extra_settings
    averaging = (Assumption("averaging", "ema", "file", "no g_ema", note=_AVERAGING_NOTE),) if is_averaged else ()
    return (*averaging, assume_batchnorm_mode(config.bn, _BATCHNORM_NOTE))


class FastGan(nn.Module):
    """init, feat_8 … feat_<N>, se_64 …, to_big, to_128: the names of the file."""

    def __init__(self, tensors: Mapping[str, Tensor], *, projected: bool) -> None:
        super().__init__()
        self.normalize_latent = projected
        latent_dim, out_channels, size, _ = require_shape(tensors, "init.init.0.weight", 4)
        first_conv = nn.ConvTranspose2d(latent_dim, out_channels, size, bias=False)
        self.init = nn.ModuleDict({"init": nn.Sequential(first_conv, nn.BatchNorm2d(out_channels), nn.GLU(1))})
        blocks = {name.partition(".")[0] for name in tensors}
        resolutions = [resolution for resolution in _RESOLUTIONS if f"feat_{resolution}" in blocks]
        if resolutions != list(_RESOLUTIONS[: len(resolutions)]) or size != 4:
            raise ArchitectureMismatch(
                f"its maps have {', '.join(map(str, [size, *resolutions]))} pixels, which do not double from 4 on"
            )
        for resolution in resolutions:
            self.add_module(f"feat_{resolution}", _make_upsampling_block(tensors, f"feat_{resolution}"))
            if f"se_{resolution}.main.1.weight" in tensors:
                self.add_module(f"se_{resolution}", SkipLayerExcitation(tensors, f"se_{resolution}.main."))
        self.to_big = make_conv(tensors, "to_big")
        if "to_128.weight" in tensors:
            self.to_128 = make_conv(tensors, "to_128")  # the small image for the discriminator
        self.channels = self.to_big.out_channels
        self.resolution = self._find_output_resolution(resolutions)
        self.use_tanh = not projected and self.resolution == _TANH_RESOLUTION

    def _find_output_resolution(self, resolutions: list[int]) -> int:
        """The resolution of the map that becomes the image: the largest one with as many channels as to_big takes."""
        fitting = [
            resolution for resolution in resolutions if self._block_channels(resolution) == self.to_big.in_channels
        ]
        if not fitting:
            raise ArchitectureMismatch(f"to_big takes {self.to_big.in_channels} channels, which no map has")
        return fitting[-1]

    def _block_channels(self, resolution: int) -> int:
        """The output channels of a block: its gate halves those of its last BatchNorm."""
        layers = self.get_submodule(f"feat_{resolution}").modules()
        return [layer.num_features // 2 for layer in layers if isinstance(layer, nn.BatchNorm2d)][-1]

    def forward(self, z: Tensor) -> Tensor:
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt() if self.normalize_latent else z
        x = self.init["init"](x[:, :, None, None])  # (B, C, 4, 4)
        maps = {4: x}
        for resolution in (size for size in _RESOLUTIONS if size <= self.resolution):
            x = self.get_submodule(f"feat_{resolution}")(x)
            if hasattr(self, f"se_{resolution}"):
                x = x * self.get_submodule(f"se_{resolution}")(maps[resolution // _EXCITATION_RATIO])
            maps[resolution] = x
        out: Tensor = self.to_big(x)  # (B, 3, H, W)
        return out.tanh() if self.use_tanh else out


def _make_upsampling_block(tensors: Mapping[str, Tensor], prefix: str) -> nn.Sequential:
    """Nearest-neighbor upsampling, then convolutions, noise, BatchNorms and gates in the order of their indices.

    Gates hold no tensors: they take the index after each BatchNorm.
    """
    indices = {
        int(match[1])
        for name in tensors
        if (match := re.match(rf"{prefix}\.(\d{{1,2}})\.(weight|running_mean)$", name))
    }
    layers: list[nn.Module] = [nn.Upsample(scale_factor=2)]
    for index in range(1, 1 + max(indices, default=0)):
        name = f"{prefix}.{index}"
        if f"{name}.running_mean" in tensors:
            layers += [nn.BatchNorm2d(require_shape(tensors, f"{name}.running_mean", 1)[0]), nn.GLU(1)]
        elif index not in indices and isinstance(layers[-1], nn.GLU):
            continue  # the gate after the BatchNorm
        elif index in indices and tensors[f"{name}.weight"].shape == (1,):
            layers.append(NoiseInjection(name))
        else:
            layers.append(make_conv(tensors, name))
    if not isinstance(layers[-1], nn.GLU):
        raise ArchitectureMismatch(f"{prefix} does not end with a BatchNorm")
    return nn.Sequential(*layers)


class SkipLayerExcitation(nn.Module):
    """A small map, pooled to 4x4, as factors in (0, 1) for the channels of a large one."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        hidden, in_channels, size, _ = require_shape(tensors, f"{prefix}1.weight", 4)
        out_channels = require_shape(tensors, f"{prefix}3.weight", 4)[0]
        self.main = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(in_channels, hidden, size, bias=False),
            nn.SiLU(),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, low_res: Tensor) -> Tensor:
        out: Tensor = self.main(low_res)  # (B, C, 1, 1)
        return out
