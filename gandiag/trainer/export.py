"""Writes a generator as a file that `gandiag audit` reads without options: weights, and settings in the header."""

from __future__ import annotations

import json
from typing import Any

from safetensors.torch import save
from torch import nn

from gandiag.trainer.run_config import RunConfig
from gandiag.trainer.toy_data import Dataset


def serialize_generator(generator: nn.Module, config: RunConfig, dataset: Dataset, step: int) -> bytes:
    """Return a safetensors file with the audit's settings under the header key "gandiag"."""
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in generator.state_dict().items()}
    return save(tensors, metadata={"gandiag": json.dumps(make_metadata(config, dataset, step), sort_keys=True)})


def make_metadata(config: RunConfig, dataset: Dataset, step: int) -> dict[str, Any]:
    """Return the header: `audit`, settings named as in AuditConfig; `trained_scale`; `run`, which run this is."""
    network, shape = config.recipe.generator, dataset.output.shape
    audit: dict[str, Any] = {"latent_dim": config.recipe.latent, "prior": config.recipe.prior}
    if network.kind in ("mlp", "conv"):
        audit["activation"] = network.activation
    if dataset.output.kind == "image":
        audit |= {"image_size": shape[-1], "channels": shape[0]}
    if network.final != "none":
        audit["output_range"] = [-1.0, 1.0] if network.final == "tanh" else [0.0, 1.0]
    run = {
        "dataset": config.dataset,
        "recipe": config.recipe.name,
        "remedy": config.remedy.name,
        "ahead": config.unroll_steps,
        "seed": config.seed,
        "step": step,
    }
    return {"audit": audit, "trained_scale": config.z_scale, "run": run}
