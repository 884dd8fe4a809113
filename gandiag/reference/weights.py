"""A generator as a file that `gandiag audit` reads without a flag: weights, and what they do not say, in the header."""

from __future__ import annotations

import json
from typing import Any

from safetensors.torch import save
from torch import nn

from gandiag.reference.data import Dataset
from gandiag.reference.plan import Plan


def as_file(net: nn.Module, plan: Plan, data: Dataset, step: int) -> bytes:
    """safetensors with the settings of an audit under the header's key "gandiag"."""
    tensors = {name: entry.detach().contiguous().clone() for name, entry in net.state_dict().items()}
    return save(tensors, metadata={"gandiag": json.dumps(stated(plan, data, step), sort_keys=True)})


def stated(plan: Plan, data: Dataset, step: int) -> dict[str, Any]:
    """`audit`: settings by the names of AuditConfig; `trained_scale`; `run`: which one this is."""
    ask, shape = plan.recipe.generator, data.output.shape
    audit: dict[str, Any] = {"latent_dim": plan.recipe.latent, "prior": plan.recipe.prior}
    if ask.kind in ("mlp", "conv"):
        audit["activation"] = ask.activation
    if data.output.kind == "image":
        audit |= {"image_size": shape[-1], "channels": shape[0]}
    if ask.final != "none":
        audit["output_range"] = [-1.0, 1.0] if ask.final == "tanh" else [0.0, 1.0]
    run = {"dataset": plan.dataset, "recipe": plan.recipe.name, "remedy": plan.remedy.name, "ahead": plan.ahead, "seed": plan.seed, "step": step}
    return {"audit": audit, "trained_scale": plan.z_scale, "run": run}
