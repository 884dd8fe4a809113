"""A generator as a file that `gandiag audit` reads without a flag: weights, and what they do not say, in the header."""

from __future__ import annotations

import json
from typing import Any

from safetensors.torch import save
from torch import nn

from gandiag.trainer.run_config import RunConfig
from gandiag.trainer.toy_data import Dataset


def serialize_generator(generator: nn.Module, config: RunConfig, dataset: Dataset, step: int) -> bytes:
    """safetensors with the settings of an audit under the header's key "gandiag"."""
    tensors = {name: entry.detach().contiguous().clone() for name, entry in generator.state_dict().items()}
    return save(tensors, metadata={"gandiag": json.dumps(make_metadata(config, dataset, step), sort_keys=True)})


def make_metadata(config: RunConfig, dataset: Dataset, step: int) -> dict[str, Any]:
    """`audit`: settings by the names of AuditConfig; `trained_scale`; `run`: which one this is."""
    ask, shape = config.recipe.generator, dataset.output.shape
    audit: dict[str, Any] = {"latent_dim": config.recipe.latent, "prior": config.recipe.prior}
    if ask.kind in ("mlp", "conv"):
        audit["activation"] = ask.activation
    if dataset.output.kind == "image":
        audit |= {"image_size": shape[-1], "channels": shape[0]}
    if ask.final != "none":
        audit["output_range"] = [-1.0, 1.0] if ask.final == "tanh" else [0.0, 1.0]
    run = {
        "dataset": config.dataset,
        "recipe": config.recipe.name,
        "remedy": config.remedy.name,
        "ahead": config.ahead,
        "seed": config.seed,
        "step": step,
    }
    return {"audit": audit, "trained_scale": config.z_scale, "run": run}
