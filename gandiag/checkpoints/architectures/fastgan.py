"""FastGAN, in the layout of its authors' repository and in that of projected-gan.

Liu et al. 2021, "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis", section 3.1 and figure 3:
a transposed convolution to 4x4, doublings with gated linear units, batch norm and one noise picture each, and maps of 4 to 32
pixels that excite the channels of those sixteen times as large. The repository's ways: a second, small picture for the critic
(not looked at here), tanh only at 1024 pixels. Sauer et al. 2021, "Projected GANs Converge Faster", normalise z and keep no tanh.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
from gandiag.checkpoints.architectures.shape_check import check_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

_SIDES = (8, 16, 32, 64, 128, 256, 512, 1024)
_APART = 16  # a map excites the one of so many times its side
_TANH = 1024


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are [synthesis.]init.init, feat_<side>, se_<side> and to_big."""
    projected = any(name.startswith("synthesis.init.init.0.") for name in weights.tensors)
    tensors = {name.removeprefix("synthesis.") if projected else name: entry for name, entry in weights.tensors.items()}
    if (
        "init.init.0.weight" not in tensors
        or "to_big.weight" not in tensors
        or not any(name.startswith("feat_8.") for name in tensors)
    ):
        raise ArchitectureMismatch("")
    if projected and ("embed.weight" in tensors or "feat_8.conv1.weight" in tensors):
        raise LoadError(
            "the file holds a class-conditional FastGAN of projected-gan, which gandiag does not rebuild",
            "build it with its own code (autonomousvision/projected-gan): --model pkg.mod:factory [--init k=v]; or audit a folder of its samples",
        )
    with torch.device("meta"):
        net = FastGan(tensors, projected=projected)
    dim = require_shape(tensors, "init.init.0.weight", 4)[0]
    check_output_shape(net, dim, (net.channels, net.resolution, net.resolution))
    load_strict(net, tensors)
    family = "family (projected-gan)" if projected else "family (FastGAN)"
    prior, prior_source = (config.prior, "flag") if config.prior else ("normal", family)
    span, span_source = (config.output_range, "flag") if config.output_range else ((-1.0, 1.0), family)
    said = (
        Assumption("latent size (--latent-dim)", str(dim), "shapes"),
        Assumption(
            "latent prior (--prior)",
            f"{prior}, of which only the direction matters: z is normalised" if projected else prior,
            prior_source,
        ),
        Assumption(
            "image size (--image-size)", f"4 to {net.resolution} pixels, doubled by nearest neighbours", "shapes"
        ),
        Assumption(
            "output range (--output-range)",
            f"[{span[0]:g}, {span[1]:g}], {_final(net.use_tanh, projected)}",
            span_source,
        ),
        *_habits(weights, config, projected=projected),
    )
    name = "FastGAN (projected-gan)" if projected else "FastGAN"
    return RebuiltGenerator(
        name,
        net,
        LatentSpec(dim, prior),
        OutputSpec("image", (net.channels, net.resolution, net.resolution), (span[0], span[1])),
        assumptions=said,
    )  # type: ignore[arg-type]


def _final(tanh: bool, projected: bool) -> str:
    return "tanh" if tanh else "without tanh" if projected else f"without tanh, which it has at {_TANH} pixels only"


def _habits(weights: Weights, config: AuditConfig, *, projected: bool) -> tuple[Assumption, ...]:
    """What the repository does around its generator, and a reader of its files should know."""
    if projected:
        return ()
    averaged = {"g", "d"} <= set(weights.extra_settings) and "g_ema" not in weights.extra_settings
    known = "the repository puts the average into g before it writes a file without g_ema"
    told = {
        "eval": "the stored statistics; the repository never calls eval() and samples by the batch's own: --bn batch"
    }.get(config.bn, config.bn)
    return (
        *([Assumption("averaging", known, "file (no g_ema)")] if averaged else []),
        Assumption("batch norm (--bn)", told, "gandiag" if config.bn == "eval" else "flag"),
    )


class FastGan(nn.Module):
    """init, feat_8 … feat_<side>, se_64 …, to_big, to_128: the names that the file has."""

    def __init__(self, tensors: Mapping[str, Tensor], *, projected: bool) -> None:
        super().__init__()
        self.normalize_latent = projected
        into, out, size, _ = require_shape(tensors, "init.init.0.weight", 4)
        self.init = nn.ModuleDict(
            {"init": nn.Sequential(nn.ConvTranspose2d(into, out, size, bias=False), nn.BatchNorm2d(out), nn.GLU(1))}
        )
        sides = [side for side in _SIDES if any(name.startswith(f"feat_{side}.") for name in tensors)]
        if sides != list(_SIDES[: len(sides)]) or size != 4:
            raise ArchitectureMismatch(
                f"its maps are of {', '.join(map(str, [size, *sides]))} pixels, which do not double from 4 on"
            )
        for side in sides:
            self.add_module(f"feat_{side}", _doubling(tensors, f"feat_{side}"))
            if f"se_{side}.main.1.weight" in tensors:
                self.add_module(f"se_{side}", SkipLayerExcitation(tensors, f"se_{side}.main."))
        self.to_big = _convolution(tensors, "to_big")
        if "to_128.weight" in tensors:
            self.to_128 = _convolution(tensors, "to_128")  # the critic's small picture
        self.channels = self.to_big.out_channels
        self.resolution = self._last(sides)
        self.use_tanh = not projected and self.resolution == _TANH

    def _last(self, sides: list[int]) -> int:
        """The map that becomes the picture: the largest one of the width that the last layer takes."""
        widths = {
            side: next(
                part.num_features // 2
                for part in reversed(list(self.get_submodule(f"feat_{side}").modules()))
                if isinstance(part, nn.BatchNorm2d)
            )
            for side in sides
        }
        fitting = [side for side in sides if widths[side] == self.to_big.in_channels]
        if not fitting:
            raise ArchitectureMismatch(f"to_big takes {self.to_big.in_channels} channels, which no map has")
        return fitting[-1]

    def forward(self, z: Tensor) -> Tensor:
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt() if self.normalize_latent else z
        x = self.init["init"](x[:, :, None, None])  # (B, C, 4, 4)
        maps = {4: x}
        for side in (side for side in _SIDES if side <= self.resolution):
            x = self.get_submodule(f"feat_{side}")(x)
            if hasattr(self, f"se_{side}"):
                x = x * self.get_submodule(f"se_{side}")(maps[side // _APART])
            maps[side] = x
        out: Tensor = self.to_big(x)  # (B, 3, side, side)
        return out.tanh() if self.use_tanh else out


def _doubling(tensors: Mapping[str, Tensor], path: str) -> nn.Sequential:
    """Nearest neighbours, then convolutions, noise, batch norms and gates in the order of their numbers; gates hold no tensor."""
    found = {
        int(match[1]): name
        for name in tensors
        if (match := re.match(rf"{path}\.(\d{{1,2}})\.(weight|running_mean)$", name))
    }
    layers: list[nn.Module] = [nn.Upsample(scale_factor=2)]
    for place in range(1, 1 + max(found, default=0)):
        if f"{path}.{place}.running_mean" in tensors:
            layers += [nn.BatchNorm2d(require_shape(tensors, f"{path}.{place}.running_mean", 1)[0]), nn.GLU(1)]
        elif place not in found and isinstance(layers[-1], nn.GLU):
            continue  # the gate behind the batch norm
        elif place in found and tensors[f"{path}.{place}.weight"].shape == (1,):
            layers.append(NoiseInjection(f"{path}.{place}"))
        else:
            layers.append(_convolution(tensors, f"{path}.{place}"))
    if not isinstance(layers[-1], nn.GLU):
        raise ArchitectureMismatch(f"{path} does not end with a batch norm")
    return nn.Sequential(*layers)


def _convolution(tensors: Mapping[str, Tensor], path: str) -> nn.Conv2d:
    out, into, size, _ = require_shape(tensors, f"{path}.weight", 4)
    return nn.Conv2d(into, out, size, padding=size // 2, bias=f"{path}.bias" in tensors)


class NoiseInjection(nn.Module):
    """One noise picture for all channels, times one learned number."""

    def __init__(self, noise_name: str) -> None:
        super().__init__()
        self.weight, self.noise = nn.Parameter(torch.empty(1)), NoiseInput(noise_name)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.weight * self.noise(x)
        return out


class SkipLayerExcitation(nn.Module):
    """A small map, pooled to 4x4, as factors in (0, 1) for the channels of a large one."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        (hidden, into, size, _), out = (
            require_shape(tensors, f"{prefix}1.weight", 4),
            require_shape(tensors, f"{prefix}3.weight", 4)[0],
        )
        first, second = nn.Conv2d(into, hidden, size, bias=False), nn.Conv2d(hidden, out, 1, bias=False)
        self.main = nn.Sequential(nn.AdaptiveAvgPool2d(4), first, nn.SiLU(), second, nn.Sigmoid())

    def forward(self, low_res: Tensor) -> Tensor:
        out: Tensor = self.main(low_res)  # (B, C, 1, 1)
        return out
