"""The knobs that a rebuilt network offers beside z: truncation (psi) and noise. Set once at load, turned for a while by probes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from gandiag.checkpoints.architectures.layers.noise_input import NoiseSampler, find_noise_inputs
from gandiag.checkpoints.architectures.layers.truncation import find_truncation_layers
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

_NOISE = {
    "const": "all samples share them, so that latents alone vary",
    "random": "every sample has its own, by its index",
    "none": "switched off",
}


def fixed_noise_mode(module: nn.Module) -> str | None:
    """The noise mode in which latents alone move the output: random noise is held fixed; None where nothing has to be turned."""
    return "const" if any(part.mode == "random" for part in find_noise_inputs(module)) else None


def configure_sampling(module: nn.Module, config: AuditConfig, name: str) -> tuple[Assumption, ...]:
    """Truncation and noise as the settings say, and what to say of them. LoadError for a knob that the network has not."""
    psis, noises = list(find_truncation_layers(module)), list(find_noise_inputs(module))
    if config.psi != 1.0 and not psis:
        raise LoadError(
            f"--psi {config.psi:g} was given, and {name} has no truncation that gandiag knows",
            "leave --psi out; --scale shrinks the latents",
        )
    if config.noise != "const" and not noises:
        raise LoadError(
            f"--noise {config.noise} was given, and {name} has no noise inputs that gandiag knows", "leave --noise out"
        )
    for psi in psis:
        psi.value = config.psi
    for noise in noises:
        noise.mode = config.noise
    said = []
    if psis:
        plain = config.psi == 1.0
        said.append(
            Assumption(
                "truncation psi (--psi)", "1: none" if plain else f"{config.psi:g}", "gandiag" if plain else "flag"
            )
        )
    if noises:
        source = "gandiag" if config.noise == "const" else "flag"
        names = len({part.name for part in noises})
        said.append(
            Assumption(
                "noise inputs (--noise)",
                f"{config.noise}: {_NOISE[config.noise]}; {names} picture{'s' if names > 1 else ''} a sample",
                source,
            )
        )
    return tuple(said)


def get_sampling_settings(module: nn.Module) -> dict[str, float | str | None]:
    """Where the knobs stand, for the record: {"psi", "noise"}, None for a knob that the network has not."""
    psis, noises = list(find_truncation_layers(module)), list(find_noise_inputs(module))
    return {"psi": psis[0].value if psis else None, "noise": noises[0].mode if noises else None}


@contextlib.contextmanager
def override_sampling(
    module: nn.Module,
    *,
    psi: float | None = None,
    noise_mode: str | None = None,
    noise_sampler: NoiseSampler | None = None,
) -> Iterator[None]:
    """The knobs at other values inside; what is None stays. `draw`: random noise for the samples of the calls inside."""
    psis, noises = list(find_truncation_layers(module)), list(find_noise_inputs(module))
    values, modes = [entry.value for entry in psis], [(part.mode, part.sampler) for part in noises]
    try:
        for entry in psis:
            entry.value = entry.value if psi is None else psi
        for part in noises:
            part.mode, part.sampler = noise_mode or part.mode, noise_sampler or part.sampler
        yield
    finally:
        for entry, value in zip(psis, values, strict=True):
            entry.value = value
        for part, (mode, drawing) in zip(noises, modes, strict=True):
            part.mode, part.sampler = mode, drawing
