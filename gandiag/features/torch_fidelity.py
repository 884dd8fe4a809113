"""torch-fidelity's extractors by its own names. The network is never touched unless the caller allows it.

FID and the Inception score mean `inception-v3-compat` and nothing else. "inception-v3-compat/logits" gives the unbiased
logits that the Inception score needs; both names share one forward pass.
"""

from __future__ import annotations

import hashlib
import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gandiag.errors import FeatureError
from gandiag.features.extractor_request import ExtractorRequest
from gandiag.interfaces import OutputSpec
from gandiag.sampling.latents import chunk_slices
from gandiag.sampling.preprocessing import match_channels, to_unit_range

INCEPTION_NAME = "inception-v3-compat"
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
_CACHED = {INCEPTION_NAME: INCEPTION_FILE, "vgg16": "vgg16-397923af.pth"}  # file name in torch.hub's cache
_DIMS = {
    INCEPTION_NAME: 2048,
    "vgg16": 4096,
    "clip-rn50": 1024,
    "clip-rn101": 512,
    "clip-rn50x4": 640,
    "clip-rn50x16": 768,
    "clip-rn50x64": 1024,
    "clip-vit-b-32": 512,
    "clip-vit-b-16": 512,
    "clip-vit-l-14": 768,
    "clip-vit-l-14-336px": 768,
    "dinov2-vit-s-14": 384,
    "dinov2-vit-b-14": 768,
    "dinov2-vit-l-14": 1024,
    "dinov2-vit-g-14": 1536,
}
_LOGITS = 1008
_CPU_BATCH, _GPU_BATCH = 16, 128


class TorchFidelityExtractor:
    """Images to (B, D) float32 on the CPU, through 8-bit RGB as torch-fidelity expects; it resizes as TensorFlow 1 did."""

    def __init__(self, name: str, net: _Net, logits: bool) -> None:
        self.name, self._net, self._logits = name, net, logits
        self.dim = _LOGITS if logits else _DIMS[net.name]
        self.fingerprint = f"{name}:torch-fidelity:{net.weights}:1"

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        return self._net.features(samples, output)[int(self._logits)]


class _Net:
    """One network; the last batch's features are kept, because two views ask for them in turn."""

    def __init__(self, name: str, device: torch.device, path: Path | None) -> None:
        self.name, self.device = name, device
        self.layers = ["2048", "logits_unbiased"] if name == INCEPTION_NAME else [_own_layer(name)]
        self._net = _build(name, self.layers, path).to(device)
        self.weights = hashlib.sha256(b"".join(_bytes(each) for each in self._net.state_dict().values())).hexdigest()[
            :12
        ]
        self._last: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def features(self, samples: Tensor, output: OutputSpec) -> tuple[Tensor, ...]:
        if self._last is None or self._last[0] is not samples:
            rows = _CPU_BATCH if self.device.type == "cpu" else _GPU_BATCH
            with torch.inference_mode():
                parts = [
                    self._net(self._eight_bits(samples[part], output)) for part in chunk_slices(len(samples), rows)
                ]
            self._last = (
                samples,
                tuple(
                    torch.cat([part[layer].float().cpu() for part in parts]).clone()
                    for layer in range(len(self.layers))
                ),
            )
        return self._last[1]

    def _eight_bits(self, samples: Tensor, output: OutputSpec) -> Tensor:
        images = match_channels(to_unit_range(samples.to(self.device), output), 3)
        return images.mul(255).round().to(torch.uint8)


def create_torch_fidelity(request: ExtractorRequest) -> TorchFidelityExtractor:
    """The factory behind torch-fidelity's names. FeatureError with the action where its weights are not at hand."""
    request.require_images()
    base = request.view.base.removesuffix("/logits")
    path = _weights(base, request)
    return TorchFidelityExtractor(
        request.view.base,
        _shared(base, str(request.device), None if path is None else str(path)),
        request.view.base.endswith("/logits"),
    )


def has_local_weights(name: str, inception_weights: str | None = None) -> bool:
    """Whether the weights of `name` are on this disk already; nothing is imported or loaded."""
    base = name.removesuffix("/logits")
    return (base == INCEPTION_NAME and inception_weights is not None) or _cached(base) is not None


@lru_cache(maxsize=2)
def _shared(name: str, device: str, path: str | None) -> _Net:
    return _Net(name, torch.device(device), None if path is None else Path(path))


def _cached(base: str) -> Path | None:
    if base not in _CACHED:
        return None
    path = Path(torch.hub.get_dir()) / "checkpoints" / _CACHED[base]
    return path if path.is_file() else None


def _weights(base: str, request: ExtractorRequest) -> Path | None:
    """The file to load, or None where torch-fidelity may fetch it."""
    if base == INCEPTION_NAME and request.inception_weights is not None:
        path = Path(request.inception_weights)
        if not path.is_file():
            raise FeatureError(
                f"there are no Inception weights at {path}",
                f"download {INCEPTION_URL} and pass it with --inception-weights",
            )
        return path
    found = _cached(base)
    if found is None and not request.download:
        also = f", or pass {INCEPTION_FILE} with --inception-weights" if base == INCEPTION_NAME else ""
        raise FeatureError(
            f"the weights of {base} are not on this machine", f"allow one download with --download{also}"
        )
    return found


def _own_layer(name: str) -> str:
    return "fc2_relu" if name == "vgg16" else "dinov2" if name.startswith("dinov2") else "clip"


def _build(name: str, layers: list[str], path: Path | None) -> Any:
    if path is not None:
        _demand_plain(path)
    try:
        from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
    except ImportError:
        raise FeatureError(f"the features {name} need torch-fidelity", "pip install torch-fidelity") from None
    try:
        with torch.random.fork_rng(devices=[]):
            net = FEATURE_EXTRACTORS_REGISTRY[name](
                name, layers, feature_extractor_weights_path=None if path is None else str(path)
            )
    except (OSError, RuntimeError, KeyError) as problem:
        first = str(problem).split("\n")[0]
        raise FeatureError(
            f"the weights of {name} cannot be loaded: {first}", "check the file, or the connection"
        ) from problem
    return net.eval().requires_grad_(False)


def _demand_plain(path: Path) -> None:
    """torch-fidelity unpickles weights with code allowed: read the file without first, and refuse what does not load that way."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as problem:
        raise FeatureError(
            f"{path} is no plain file of weights: {str(problem).splitlines()[0]}", f"download {INCEPTION_URL} again"
        ) from None


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
