"""Builds the UNet and the DDIM scheduler of a diffusers folder from their JSON settings, which are checked first."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import load_strict
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.errors import LoadError

MAX_SIZE = 8192  # channels, resolutions: no UNet that fits into memory has more
_MAX_DEPTH = 32  # blocks, layers of a block
# names of attention layers before diffusers 0.15 -> since then
_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_CONFIG_ERRORS = (ValueError, TypeError, KeyError, IndexError, NotImplementedError, AttributeError)


def build_unet(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> nn.Module:
    """The UNet2DModel of unet/config.json with these weights. LoadError if settings and weights do not agree.

    `name`: the folder, for messages.
    """
    diffusers = import_diffusers()
    kind = settings.get("_class_name", "")
    in_channels, out_channels = settings.get("in_channels", 3), settings.get("out_channels", 3)
    if kind != "UNet2DModel" or in_channels != out_channels:
        raise LoadError(
            f"{name}: unet/config.json describes a {str(kind)[:60]} from {in_channels} to {out_channels} channels",
            "gandiag samples a UNet2DModel with equal input and output channels; else audit a folder of its samples",
        )
    _check_sizes(settings, name)
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # about layers without values
            unet: nn.Module = diffusers.UNet2DModel.from_config(_drop_private(settings))
        load_strict(unet, _rename_attention(tensors))
    except (ArchitectureMismatch, *_CONFIG_ERRORS) as error:
        raise LoadError(
            f"{name}: unet/config.json and the weights do not agree: {_first_line(error)}",
            "save the pipeline again: save_pretrained(...)",
        ) from None
    unset = [key for key, tensor in [*unet.named_buffers(), *unet.named_parameters()] if tensor.is_meta]
    if unset:
        raise LoadError(
            f"{name}: {unset[0]} is computed when the network is built, and is not in the file",
            "audit a folder of its samples",
        )
    return unet


def build_scheduler(settings: Mapping[str, Any], sampling_steps: int, name: str) -> Any:
    """A DDIM scheduler with these settings. LoadError if DDIM does not take them.

    One step is run, because some settings are only checked then.
    """
    diffusers = import_diffusers()
    training_steps = settings.get("num_train_timesteps", 1000)
    if type(training_steps) is not int or not 1 <= training_steps <= 100_000:
        raise LoadError(
            f"{name}: num_train_timesteps in scheduler_config.json is {str(training_steps)[:40]}",
            "it must be between 1 and 100000",
        )
    try:
        scheduler = diffusers.DDIMScheduler.from_config(_drop_private(settings))
        scheduler.set_timesteps(sampling_steps)
        scheduler.step(torch.zeros(1, 1, 2, 2), scheduler.timesteps[0], torch.zeros(1, 1, 2, 2), eta=0.0)
        return scheduler
    except (*_CONFIG_ERRORS, RuntimeError, OverflowError) as error:
        raise LoadError(
            f"{name}: scheduler_config.json does not configure DDIM: {_first_line(error)}",
            "save the pipeline again: save_pretrained(...)",
        ) from None


def import_diffusers() -> Any:
    """The package diffusers. LoadError if it is not installed."""
    try:
        import diffusers
    except ImportError:
        raise LoadError(
            "a diffusers pipeline needs diffusers, which is not installed", "pip install 'gandiag[diffusers]'"
        ) from None
    return diffusers


def _check_sizes(settings: Mapping[str, Any], name: str) -> None:
    """Rejects absurd sizes: a config of a few bytes may ask for any number of layers."""
    for key, value in settings.items():
        if key == "num_train_timesteps":
            continue
        values = value if isinstance(value, list) else [value]
        limit = _MAX_DEPTH if key == "layers_per_block" else MAX_SIZE
        numbers = [number for number in values if isinstance(number, (int, float))]
        # a negated comparison, so that NaN fails too
        if len(values) > _MAX_DEPTH or any(not abs(number) <= limit for number in numbers):
            raise LoadError(
                f"{name}: {key[:40]} in unet/config.json is implausibly large: malformed or hostile", "do not use it"
            )


def _rename_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    pattern = re.compile(rf"(?<=\.)({'|'.join(_ATTENTION_NAMES)})(?=\.(weight|bias)$)")
    return {
        pattern.sub(lambda match: _ATTENTION_NAMES[match[1]], name) if ".attentions." in name else name: tensor
        for name, tensor in tensors.items()
    }


def _drop_private(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if not key.startswith("_")}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
