"""Sampling controls (truncation psi, noise mode): set once at load, temporarily overridden by probes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from gandiag.checkpoints.architectures.layers.noise_input import NoiseSampler, find_noise_inputs
from gandiag.checkpoints.architectures.layers.truncation import find_truncation_layers
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

_NOISE_NOTES = {
    "const": "shared by all samples, so that only latents vary",
    "random": "drawn for every sample, by its index",
    "none": "switched off",
}


def fixed_noise_mode(module: nn.Module) -> str | None:
    """The noise mode in which only latents change the output: "const" in place of random noise, else None."""
    return "const" if any(part.mode == "random" for part in find_noise_inputs(module)) else None


def configure_sampling(module: nn.Module, config: AuditConfig, name: str) -> tuple[Assumption, ...]:
    """Set truncation and noise mode as configured; returns the assumptions.

    LoadError for a control that the network does not have.
    """
    truncations, noise_inputs = list(find_truncation_layers(module)), list(find_noise_inputs(module))
    if config.psi != 1.0 and not truncations:
        raise LoadError(
            f"--psi {config.psi:g} was given, but {name} has no truncation that gandiag knows",
            "leave --psi out; --scale shrinks the latents",
        )
    if config.noise != "const" and not noise_inputs:
        raise LoadError(
            f"--noise {config.noise} was given, but {name} has no noise inputs that gandiag knows", "leave --noise out"
        )
    for truncation in truncations:
        truncation.value = config.psi
    for noise_input in noise_inputs:
        noise_input.mode = config.noise
    assumptions = []
    if truncations:
        is_off = config.psi == 1.0
        assumptions.append(
            Assumption("psi", config.psi, "gandiag" if is_off else "flag", note="no truncation" if is_off else "")
        )
    if noise_inputs:
        n_maps = len({part.name for part in noise_inputs})
        note = f"{_NOISE_NOTES[config.noise]}; {n_maps} noise map{'s' * (n_maps > 1)} per sample"
        assumptions.append(
            Assumption("noise", config.noise, "gandiag" if config.noise == "const" else "flag", note=note)
        )
    return tuple(assumptions)


def get_sampling_settings(module: nn.Module) -> dict[str, float | str | None]:
    """The current controls, for the record: {"psi", "noise"}; None for a control that the network does not have."""
    truncations, noise_inputs = list(find_truncation_layers(module)), list(find_noise_inputs(module))
    return {
        "psi": truncations[0].value if truncations else None,
        "noise": noise_inputs[0].mode if noise_inputs else None,
    }


@contextlib.contextmanager
def override_sampling(
    module: nn.Module,
    *,
    psi: float | None = None,
    noise_mode: str | None = None,
    noise_sampler: NoiseSampler | None = None,
) -> Iterator[None]:
    """Other controls inside the context; None leaves one as it is.

    `noise_sampler`: draws random noise for the calls inside.
    """
    truncations, noise_inputs = list(find_truncation_layers(module)), list(find_noise_inputs(module))
    saved_psis = [layer.value for layer in truncations]
    saved_noise = [(part.mode, part.sampler) for part in noise_inputs]
    try:
        for layer in truncations:
            layer.value = layer.value if psi is None else psi
        for part in noise_inputs:
            part.mode, part.sampler = noise_mode or part.mode, noise_sampler or part.sampler
        yield
    finally:
        for layer, value in zip(truncations, saved_psis, strict=True):
            layer.value = value
        for part, (mode, sampler) in zip(noise_inputs, saved_noise, strict=True):
            part.mode, part.sampler = mode, sampler
