"""Unconditional diffusers folders as generators: DDPM or DDIM pipelines with a UNet2DModel, sampled by DDIM with eta 0.

Song et al. 2021, "Denoising Diffusion Implicit Models", eq. 12 with eta = 0: the image is then a function of the
initial noise alone, and that noise is z. Only JSON and weights are read, by gandiag's own readers; model_index.json may
name classes of diffusers and nothing else, so that no code other than the library's is ever imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gandiag.checkpoints.architectures.assumptions import format_shape
from gandiag.checkpoints.architectures.base import RebuiltGenerator
from gandiag.checkpoints.diffusers_parts import MAX_SIZE, build_scheduler, build_unet
from gandiag.checkpoints.metadata import read_json_object
from gandiag.checkpoints.model_factory import parse_init_args
from gandiag.checkpoints.readers import FileContents, read_checkpoint
from gandiag.checkpoints.state_dict import cast_to_float32, find_generator_weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

DEFAULT_SAMPLING_STEPS = 50
_MAX_SAMPLING_STEPS = 1000
_PIPELINES = ("DDPMPipeline", "DDIMPipeline")
_SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")


def read_diffusers_pipeline(folder: Path, weights_path: Path, *, compute_hash: bool) -> FileContents:
    """The folder as a GeneratorProgram. LoadError for another kind of pipeline, which it names."""
    _check_index(read_json_object(folder / "model_index.json"), folder.name)
    content = read_checkpoint(str(weights_path), compute_hash=compute_hash)
    unet_config = read_json_object(folder / "unet" / "config.json")
    scheduler_config = read_json_object(folder / "scheduler" / "scheduler_config.json")
    if not unet_config or not scheduler_config:
        missing = "unet/config.json" if not unet_config else "scheduler/scheduler_config.json"
        raise LoadError(
            f"{folder.name} has no {missing}, or it is not plain JSON", "save it again: pipeline.save_pretrained(...)"
        )
    weights = find_generator_weights(content.tree, name=weights_path.name)
    pipeline = DiffusersPipeline(cast_to_float32(weights).tensors, unet_config, scheduler_config, weights.n_parameters)
    return FileContents(pipeline, "diffusers", content.sha256, content.notes)


def _check_index(index: Mapping[str, Any], folder_name: str) -> None:
    name, unet, scheduler = index.get("_class_name"), index.get("unet"), index.get("scheduler")
    parts = [key for key, entry in index.items() if not key.startswith("_") and entry not in (None, [None, None])]
    is_supported = (
        name in _PIPELINES
        and unet == ["diffusers", "UNet2DModel"]
        and scheduler in [["diffusers", kind] for kind in _SCHEDULERS]
        and len(parts) <= 2
    )
    if not is_supported:
        contents = ", ".join(parts[:5]) or "no parts"
        raise LoadError(
            f"{folder_name} is a diffusers pipeline ({str(name)[:60]} with {contents}), "
            "and gandiag samples unconditional ones",
            "it takes DDPMPipeline and DDIMPipeline with UNet2DModel and a DDPM or DDIM scheduler; "
            "else audit a folder of its samples",
        )


@dataclass(frozen=True, slots=True, eq=False)
class DiffusersPipeline:
    """Weights and settings of both parts. See `GeneratorProgram`."""

    tensors: Mapping[str, Tensor]
    unet_config: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    n_parameters: int

    def build_generator(self, config: AuditConfig, name: str, *, inspect_only: bool) -> RebuiltGenerator:
        """The generator.

        LoadError for settings that do not agree with the weights, and for flags that contradict them.
        """
        _reject_flags(config, name)
        steps = _read_sampling_steps(config)
        unet = build_unet(self.unet_config, self.tensors, name)
        scheduler = build_scheduler(self.scheduler_config, steps, name)
        shape = self._read_shape(name)
        classes = self.unet_config.get("num_class_embeds") or None
        return RebuiltGenerator(
            "diffusers UNet2DModel, by DDIM",
            DiffusionGenerator(unet, scheduler, steps).eval().requires_grad_(False),
            LatentSpec(shape[0] * shape[1] * shape[2], "normal", shape),
            OutputSpec("image", shape, (-1.0, 1.0)),
            classes,
            "index" if classes else None,
            _list_assumptions(shape, classes, _describe_sampler(scheduler, steps), is_requested=bool(config.init)),
        )

    def _read_shape(self, name: str) -> tuple[int, int, int]:
        size: Any = self.unet_config.get("sample_size")
        sizes: list[Any] = size if isinstance(size, list) else [size, size]
        if len(sizes) != 2 or not all(type(length) is int and 0 < length <= MAX_SIZE for length in sizes):
            raise LoadError(
                f"{name} does not state its image size (sample_size in unet/config.json)", "add sample_size there"
            )
        return int(self.unet_config.get("in_channels", 3)), sizes[0], sizes[1]


def _list_assumptions(
    shape: tuple[int, int, int], classes: int | None, sampler_note: str, *, is_requested: bool
) -> tuple[Assumption, ...]:
    latent_note = f"the initial noise, {format_shape(shape)}"
    sampler_source, sampler_origin = ("flag", "") if is_requested else ("default", f"{DEFAULT_SAMPLING_STEPS} steps")
    class_assumption = Assumption("classes", classes, "file", "unet/config.json", note="as an index")
    return (
        Assumption("latent_dim", shape[0] * shape[1] * shape[2], "file", "unet/config.json", note=latent_note),
        Assumption("prior", "normal", "file", "the noise that diffusion starts from"),
        Assumption("sampler", "DDIM", sampler_source, sampler_origin, note=sampler_note),
        *((class_assumption,) if classes else ()),
        Assumption("output_range", (-1.0, 1.0), "file", "pipeline", note="clipped there, as the pipeline does"),
    )


def _describe_sampler(scheduler: Any, steps: int) -> str:
    spacing, prediction = scheduler.config.timestep_spacing, scheduler.config.prediction_type
    return f"eta 0, {steps} steps, {spacing} spacing, {prediction} prediction; no noise but the initial one"


class DiffusionGenerator(nn.Module):
    """forward(noise (B, C, H, W), labels): images of the same shape in [-1, 1]. Cost: one pass of the UNet per step."""

    def __init__(self, unet: nn.Module, scheduler: Any, steps: int) -> None:
        super().__init__()
        self.unet, self.scheduler, self.steps = unet, scheduler, steps

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        self.scheduler.set_timesteps(self.steps)
        for step in self.scheduler.timesteps:
            prediction = self.unet(x, step, labels).sample if labels is not None else self.unet(x, step).sample
            x = self.scheduler.step(prediction, step, x, eta=0.0).prev_sample
        return x.clamp(-1, 1)


def _reject_flags(config: AuditConfig, name: str) -> None:
    """LoadError for settings that the pipeline fixes itself."""
    for flag, value in (
        ("--latent-dim", config.latent_dim),
        ("--prior", config.prior),
        ("--classes", config.classes),
        ("--output-range", config.output_range),
    ):
        if value is not None:
            raise LoadError(f"{flag} {value} was given, but {name} states that itself", f"remove {flag}")


def _read_sampling_steps(config: AuditConfig) -> int:
    arguments = parse_init_args(config.init)
    steps = arguments.pop("steps", DEFAULT_SAMPLING_STEPS)
    if arguments or type(steps) is not int or not 1 <= steps <= _MAX_SAMPLING_STEPS:
        raise LoadError(
            f"--init {', '.join(config.init)}: a diffusion model takes steps=N, from 1 to {_MAX_SAMPLING_STEPS}",
            "--init steps=50",
        )
    return steps
