"""torch-fidelity's extractors under its own names. The network is used only if the caller allows it.

FID and the Inception score imply `inception-v3-compat`. "inception-v3-compat/logits" gives the unbiased logits that the
Inception score needs; both names share one forward pass.
"""

from __future__ import annotations

import hashlib
import pickle
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from gandiag.errors import FeatureError
from gandiag.features.extractors import ExtractorRequest
from gandiag.interfaces import OutputSpec
from gandiag.sampling.latents import chunk_slices
from gandiag.sampling.preprocessing import match_channels, to_unit_range

INCEPTION_NAME = "inception-v3-compat"
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
_WEIGHT_FILES = {INCEPTION_NAME: INCEPTION_FILE, "vgg16": "vgg16-397923af.pth"}  # file names in torch.hub's cache
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
_LOGITS_DIM = 1008
_CPU_BATCH, _GPU_BATCH = 16, 128


class TorchFidelityExtractor:
    """Images to (B, D) float32 on the CPU, through 8-bit RGB. torch-fidelity resizes as TensorFlow 1 did."""

    def __init__(self, name: str, network: _Network, uses_logits: bool) -> None:
        self.name, self._network, self._uses_logits = name, network, uses_logits
        self.dim = _LOGITS_DIM if uses_logits else _DIMS[network.name]
        self.fingerprint = f"{name}:torch-fidelity:{network.weights_hash}:1"

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        return self._network.features(samples, output)[int(self._uses_logits)]


class _Network:
    """One network. It keeps the features of the last batch, because two views request them in turn."""

    def __init__(self, name: str, device: torch.device, weights_path: Path | None) -> None:
        self.name, self.device = name, device
        self.layers = ["2048", "logits_unbiased"] if name == INCEPTION_NAME else [_feature_layer(name)]
        self._module = _build_network(name, self.layers, weights_path).to(device)
        weights = b"".join(_tensor_bytes(tensor) for tensor in self._module.state_dict().values())
        self.weights_hash = hashlib.sha256(weights).hexdigest()[:12]
        self._last: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def features(self, samples: Tensor, output: OutputSpec) -> tuple[Tensor, ...]:
        """The features of each layer, (B, D) float32 on the CPU."""
        if self._last is None or self._last[0] is not samples:
            batch_size = _CPU_BATCH if self.device.type == "cpu" else _GPU_BATCH
            with torch.inference_mode():
                batches = [
                    self._module(self._to_uint8(samples[rows], output))
                    for rows in chunk_slices(len(samples), batch_size)
                ]
            by_layer = zip(*batches, strict=True)
            self._last = samples, tuple(torch.cat([part.float().cpu() for part in parts]).clone() for parts in by_layer)
        return self._last[1]

    def _to_uint8(self, samples: Tensor, output: OutputSpec) -> Tensor:
        images = match_channels(to_unit_range(samples.to(self.device), output), 3)
        return images.mul(255).round().to(torch.uint8)


def create_torch_fidelity(request: ExtractorRequest) -> TorchFidelityExtractor:
    """The factory of torch-fidelity's names. FeatureError with a remedy where the weights are not available."""
    request.require_images()
    name = request.view.base
    base = name.removesuffix("/logits")
    path = _find_weights(base, request)
    network = _shared_network(base, str(request.device), None if path is None else str(path))
    return TorchFidelityExtractor(name, network, name.endswith("/logits"))


def has_local_weights(name: str, inception_weights: str | None = None) -> bool:
    """Whether the weights of `name` are on this disk; nothing is imported or loaded."""
    base = name.removesuffix("/logits")
    return (base == INCEPTION_NAME and inception_weights is not None) or _find_cached_weights(base) is not None


@lru_cache(maxsize=2)
def _shared_network(name: str, device: str, weights_path: str | None) -> _Network:
    return _Network(name, torch.device(device), None if weights_path is None else Path(weights_path))


def _find_cached_weights(base: str) -> Path | None:
    if base not in _WEIGHT_FILES:
        return None
    path = Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHT_FILES[base]
    return path if path.is_file() else None


def _find_weights(base: str, request: ExtractorRequest) -> Path | None:
    """The file to load, or None where torch-fidelity may download it."""
    if base == INCEPTION_NAME and request.inception_weights is not None:
        path = Path(request.inception_weights)
        if not path.is_file():
            raise FeatureError(
                f"there are no Inception weights at {path}",
                f"download {INCEPTION_URL} and pass it with --inception-weights",
            )
        return path
    cached = _find_cached_weights(base)
    if cached is None and not request.download:
        alternative = f", or pass {INCEPTION_FILE} with --inception-weights" if base == INCEPTION_NAME else ""
        raise FeatureError(
            f"the weights of {base} are not on this machine", f"allow one download with --download{alternative}"
        )
    return cached


def _feature_layer(name: str) -> str:
    if name == "vgg16":
        return "fc2_relu"
    return "dinov2" if name.startswith("dinov2") else "clip"


def _build_network(name: str, layers: list[str], weights_path: Path | None) -> nn.Module:
    if weights_path is not None:
        _require_plain_weights(weights_path)
    try:
        from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
    except ImportError:
        raise FeatureError(f"the features {name} need torch-fidelity", "run pip install torch-fidelity") from None
    path = None if weights_path is None else str(weights_path)
    try:
        with torch.random.fork_rng(devices=[]):
            network: nn.Module = FEATURE_EXTRACTORS_REGISTRY[name](name, layers, feature_extractor_weights_path=path)
    except (OSError, RuntimeError, KeyError) as error:
        first_line = str(error).split("\n")[0]
        raise FeatureError(
            f"the weights of {name} cannot be loaded: {first_line}", "check the file, or the connection"
        ) from error
    return network.eval().requires_grad_(False)


def _require_plain_weights(path: Path) -> None:
    """Refuse a file that does not load without code execution: torch-fidelity unpickles weights with code allowed."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise FeatureError(
            f"{path} is not a plain file of weights: {str(error).splitlines()[0]}", f"download {INCEPTION_URL} again"
        ) from None


def _tensor_bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
