"""Unconditional diffusers folders as generators: DDPMPipeline or DDIMPipeline with a UNet2DModel, sampled by deterministic DDIM.

Song et al. 2021, "Denoising Diffusion Implicit Models", eq. 12 with eta = 0: the image is then a function of the first noise alone,
and that noise is z. Only JSON and weights are read, by gandiag's own readers; model_index.json may name classes of diffusers itself
and nothing else, so that no code beside the library's is ever imported.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.model_factory import parse_init_args
from gandiag.checkpoints.readers import FileContents, read_checkpoint
from gandiag.checkpoints.sidecar_config import read_json_object
from gandiag.checkpoints.state_dict import cast_to_float32, find_generator_weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

DEFAULT_SAMPLING_STEPS = 50
_PIPELINES = ("DDPMPipeline", "DDIMPipeline")
_SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")
_MOST = 8192  # channels, sizes: no UNet that fits into memory has more
_DEEPEST = 32  # blocks, layers of a block
# attention as diffusers wrote it before 0.15
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_diffusers_pipeline(folder: Path, weights_path: Path, *, compute_hash: bool) -> FileContents:
    """The folder as a program. LoadError where it is another pipeline, with what it is."""
    index = read_json_object(folder / "model_index.json")
    name, unet, scheduler = index.get("_class_name"), index.get("unet"), index.get("scheduler")
    parts = [key for key, entry in index.items() if not key.startswith("_") and entry not in (None, [None, None])]
    if (
        name not in _PIPELINES
        or unet != ["diffusers", "UNet2DModel"]
        or scheduler not in [["diffusers", kind] for kind in _SCHEDULERS]
        or len(parts) > 2
    ):
        what = f"{folder.name} is a diffusers pipeline ({str(name)[:60]} with {', '.join(parts[:5]) or 'no parts'}), and gandiag samples unconditional ones"
        raise LoadError(
            what,
            "it takes DDPMPipeline and DDIMPipeline with UNet2DModel and a DDPM or DDIM scheduler; else audit a folder of its samples",
        )
    content = read_checkpoint(str(weights_path), compute_hash=compute_hash)
    network, plan = (
        read_json_object(folder / "unet" / "config.json"),
        read_json_object(folder / "scheduler" / "scheduler_config.json"),
    )
    if not network or not plan:
        missing = "unet/config.json" if not network else "scheduler/scheduler_config.json"
        raise LoadError(
            f"{folder.name} has no {missing}, or none that is plain JSON",
            "save it again: pipeline.save_pretrained(...)",
        )
    found = find_generator_weights(content.tree, name=weights_path.name)
    return FileContents(
        DiffusersPipeline(cast_to_float32(found).tensors, network, plan, found.n_parameters),
        "diffusers",
        content.sha256,
        content.notes,
    )


@dataclass(frozen=True, slots=True, eq=False)
class DiffusersPipeline:
    """Weights and settings of both parts. See `Program`."""

    tensors: Mapping[str, Tensor]
    unet_config: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    n_parameters: int

    def build_generator(self, config: AuditConfig, name: str, *, inspect_only: bool) -> RebuiltGenerator:
        _refuse_flags(config, name)
        steps, source = _steps(config)
        unet = _unet(self.unet_config, self.tensors, name)
        scheduler = _scheduler(self.scheduler_config, steps, name)
        size = self.unet_config.get("sample_size")
        sides = tuple(size) if isinstance(size, list) else (size, size)
        if len(sides) != 2 or not all(type(side) is int and 0 < side <= _MOST for side in sides):
            raise LoadError(
                f"{name} does not say the size of its pictures (sample_size in unet/config.json)", "write it there"
            )
        shape = (int(self.unet_config.get("in_channels", 3)), *sides)
        classes = self.unet_config.get("num_class_embeds")
        dim = shape[0] * shape[1] * shape[2]
        spacing, guess = scheduler.config.timestep_spacing, scheduler.config.prediction_type
        assumed = (
            Assumption(
                "latent size (--latent-dim)",
                f"{dim}: the first noise, {'x'.join(map(str, shape))}",
                "file (unet/config.json)",
            ),
            Assumption("latent prior (--prior)", "normal", "file (the noise that diffusion starts from)"),
            Assumption(
                "sampler (--init steps=N)",
                f"DDIM, eta 0, {steps} steps, {spacing} spacing, {guess} prediction: no noise but the first",
                source,
            ),
            *(
                (Assumption("classes (--classes)", f"{classes}, as an index", "file (unet/config.json)"),)
                if classes
                else ()
            ),
            Assumption("output range (--output-range)", "[-1, 1], cut there as the pipeline does", "file (pipeline)"),
        )
        module = DiffusionGenerator(unet, scheduler, steps).eval().requires_grad_(False)
        return RebuiltGenerator(
            "diffusers UNet2DModel, by DDIM",
            module,
            LatentSpec(dim, "normal", shape),
            OutputSpec("image", shape, (-1.0, 1.0)),
            classes or None,
            "index" if classes else None,
            assumed,
        )


class DiffusionGenerator(nn.Module):
    """forward(noise (B, C, H, W), labels): pictures of the same shape in [-1, 1]. Cost: one pass of the UNet a step."""

    def __init__(self, unet: nn.Module, scheduler: Any, steps: int) -> None:
        super().__init__()
        self.unet, self.scheduler, self.steps = unet, scheduler, steps

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        self.scheduler.set_timesteps(self.steps)
        for step in self.scheduler.timesteps:
            guess = self.unet(x, step, labels).sample if labels is not None else self.unet(x, step).sample
            x = self.scheduler.step(guess, step, x, eta=0.0).prev_sample
        return x.clamp(-1, 1)


def _refuse_flags(config: AuditConfig, name: str) -> None:
    for flag, given in (
        ("--latent-dim", config.latent_dim),
        ("--prior", config.prior),
        ("--classes", config.classes),
        ("--output-range", config.output_range),
    ):
        if given is not None:
            raise LoadError(f"{flag} {given} was given, and {name} says that itself", f"remove {flag}")


def _steps(config: AuditConfig) -> tuple[int, str]:
    given = parse_init_args(config.init)
    steps = given.pop("steps", DEFAULT_SAMPLING_STEPS)
    if given or type(steps) is not int or not 1 <= steps <= 1000:
        raise LoadError(
            f"--init {', '.join(config.init)}: a diffusion model takes steps=N, from 1 to 1000", "--init steps=50"
        )
    return steps, "flag" if config.init else f"default ({DEFAULT_SAMPLING_STEPS})"


def _unet(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> nn.Module:
    diffusers = _library()
    kind, into, out = (
        settings.get(key, other) for key, other in (("_class_name", ""), ("in_channels", 3), ("out_channels", 3))
    )
    if kind != "UNet2DModel" or into != out:
        what = f"{name}: unet/config.json describes a {str(kind)[:60]} from {into} to {out} channels"
        raise LoadError(
            what,
            "gandiag samples a UNet2DModel that gives as many channels as it takes; else audit a folder of its samples",
        )
    _demand_small(settings, name)
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # that layers are empty
            net = diffusers.UNet2DModel.from_config(
                {key: entry for key, entry in settings.items() if not key.startswith("_")}
            )
        load_strict(net, _renamed(tensors))
    except (
        ArchitectureMismatch,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        NotImplementedError,
        AttributeError,
    ) as wrong:
        first = (str(wrong).strip().splitlines() or [type(wrong).__name__])[0][:160]
        raise LoadError(
            f"{name}: unet/config.json and the weights do not fit each other: {first}",
            "save the pipeline again: save_pretrained(...)",
        ) from None
    left = [key for key, entry in [*net.named_buffers(), *net.named_parameters()] if entry.is_meta]
    if left:
        raise LoadError(
            f"{name}: {left[0]} is computed when the network is built and not stored", "audit a folder of its samples"
        )
    made: nn.Module = net
    return made


def _demand_small(settings: Mapping[str, Any], name: str) -> None:
    """A config of a few bytes may ask for any number of layers."""
    for key, entry in settings.items():
        values = [] if key == "num_train_timesteps" else entry if isinstance(entry, list) else [entry]
        most = _DEEPEST if key == "layers_per_block" else _MOST
        if len(values) > _DEEPEST or any(
            isinstance(value, (int, float)) and not abs(value) <= most for value in values
        ):
            raise LoadError(
                f"{name}: {key[:40]} in unet/config.json is out of all proportion: malformed or hostile",
                "do not use it",
            )


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    def new(name: str) -> str:
        return (
            re.sub(r"(?<=\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)", lambda found: _OLD[found[1]], name)
            if ".attentions." in name
            else name
        )

    return {new(name): entry for name, entry in tensors.items()}


def _scheduler(plan: Mapping[str, Any], sampled: int, name: str) -> Any:
    """DDIM by these settings, set for so many steps; one of them is taken, as some settings are only looked at then."""
    diffusers = _library()
    steps = plan.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= 100_000:
        raise LoadError(
            f"{name}: num_train_timesteps in scheduler_config.json is {str(steps)[:40]}", "it must be from 1 to 100000"
        )
    try:
        made = diffusers.DDIMScheduler.from_config(
            {key: entry for key, entry in plan.items() if not key.startswith("_")}
        )
        made.set_timesteps(sampled)
        made.step(torch.zeros(1, 1, 2, 2), made.timesteps[0], torch.zeros(1, 1, 2, 2), eta=0.0)
        return made
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        NotImplementedError,
        AttributeError,
        RuntimeError,
        OverflowError,
    ) as wrong:
        first = (str(wrong).strip().splitlines() or [type(wrong).__name__])[0][:160]
        raise LoadError(
            f"{name}: scheduler_config.json is none of DDIM: {first}", "save the pipeline again: save_pretrained(...)"
        ) from None


def _library() -> Any:
    try:
        import diffusers
    except ImportError:
        raise LoadError(
            "a diffusers pipeline needs diffusers, which is not installed", "pip install 'gandiag[diffusers]'"
        ) from None
    return diffusers
