"""Writes the reading of a file as the source of a plain PyTorch module, for people to check, correct and load again.

The module has the file's own parameter names, so that `--model net.py:G` loads the file's weights into it. Text from
the file appears in the source as quoted strings only.
"""

from __future__ import annotations

import inspect

from torch import nn

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.inference.class_embedding import ClassConditionalGenerator
from gandiag.checkpoints.inference.gap_norms import FixedInstanceNorm, FixedLayerNorm, PixelNorm, Resize
from gandiag.checkpoints.inference.layer_specs import DepthToSpace
from gandiag.checkpoints.inference.sequential import SequentialGenerator
from gandiag.errors import LoadError

# What is written as torch prints it; of these, what is printed is all that the layer is.
_TORCH_LAYERS = (
    *(nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.Flatten, nn.Unflatten),
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Tanh, nn.Sigmoid),
    *(nn.PixelShuffle, nn.Upsample, nn.GroupNorm, nn.LayerNorm, nn.PReLU),
)
_OWN_LAYERS = (PixelNorm, FixedLayerNorm, FixedInstanceNorm, Resize, DepthToSpace)
_SKIPPED_LAYERS = (nn.Identity, nn.Dropout, nn.Dropout2d)  # they do nothing at inference

_TEMPLATE = '''"""{title}

Written by `gandiag inspect --emit-model`. Check it against the training code, correct it, and load the same weights:

    gandiag audit FILE --model net.py:G{flags}
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

{definitions}
class G(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = {latent_dim}
{table}        # the name of each layer in the file (None: it has no weights), and the layer
        layers = [
{layers}
        ]
        for name, layer in layers:
            if name is not None:
                add_layer(self, name, layer)
        self.sequence = [layer for _, layer in layers]

    def forward(self, z{labels_argument}):
        x = {inputs}
        x = x.reshape(len(x), {input_shape})
        for layer in self.sequence:
            x = layer(x)
        return x.reshape(len(x), {output_shape})


def add_layer(module, name, layer):
    """Register a layer under a dotted name."""
    *path, last = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module._modules[part]
    module.add_module(last, layer)
'''


def write_model_source(generator: LoadedGenerator) -> str:
    """The source of a module G with the reading's structure. LoadError for networks that are not sequential."""
    module = generator.module
    table = module if isinstance(module, ClassConditionalGenerator) else None
    module = module if table is None else table.chain
    if not isinstance(module, SequentialGenerator):
        family = generator.subject.get("family") or type(module).__name__
        raise LoadError(f"{family} is not written as source, only layers in sequence are", "use its own code")
    _require_every_weight(generator, module, table)
    named = [
        (name, layer)
        for name, layer in zip(module.layer_names, module.layers, strict=True)
        if not isinstance(layer, _SKIPPED_LAYERS)
    ]
    used = [cls for cls in _OWN_LAYERS if any(isinstance(layer, cls) for _, layer in named)]
    definitions = [inspect.getsource(cls) + "\n" for cls in used]
    if PixelNorm in used:
        definitions.insert(0, "_EPS = 1e-8  # of PixelNorm\n\n")
    return _TEMPLATE.format(
        title=f"The reading of a checkpoint: {generator.output.kind} {_join(generator.output.shape)}.",
        flags=_flags(generator),
        definitions="\n".join(["", *definitions]),
        latent_dim=generator.latent.dim,
        table=_table_line(table),
        layers="\n".join(f"            ({name or None!r}, {_layer_source(layer)})," for name, layer in named),
        labels_argument="" if table is None else ", labels",
        inputs=_inputs(table),
        input_shape=_join(module.input_shape),
        output_shape=_join(module.output_shape),
    )


def _join(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _require_every_weight(
    generator: LoadedGenerator, module: SequentialGenerator, table: ClassConditionalGenerator | None
) -> None:
    """LoadError where the file's tensors are not the module's, one by one: `--model` would refuse the file."""
    counted = sum(parameter.numel() for parameter in (table or module).parameters())
    in_file = generator.subject.get("parameters")
    nameless = any(
        not name and len(layer.state_dict()) for name, layer in zip(module.layer_names, module.layers, strict=True)
    )
    if counted == in_file and not nameless:
        return
    raise LoadError(
        f"the reading has {counted:,} parameters and the file {in_file:,}, under other names: weights are normalized, "
        "joined or not used",
        "write the module by hand and pass it as --model",
    )


def _layer_source(layer: nn.Module) -> str:
    if isinstance(layer, Resize):
        return f"Resize({layer.mode!r})"
    if isinstance(layer, _OWN_LAYERS):
        return f"{type(layer).__name__}()"
    is_plain = type(layer) in _TORCH_LAYERS and getattr(layer, "padding_mode", "zeros") == "zeros"
    if not is_plain:
        raise LoadError(f"{type(layer).__name__} layers are not written as source", "write the module by hand")
    if isinstance(layer, nn.Upsample):
        corners = "" if layer.align_corners is None else f", align_corners={layer.align_corners}"
        return f"nn.Upsample(scale_factor={layer.scale_factor}, mode={layer.mode!r}{corners})"
    return f"nn.{layer!r}"


def _table_line(table: ClassConditionalGenerator | None) -> str:
    if table is None:
        return ""
    classes, width = table.table.weight.shape
    return (
        f"        self.tables = [nn.Embedding({classes}, {width})]  # one vector per class\n"
        f"        add_layer(self, {table.table_name!r}, self.tables[0])\n"
    )


def _inputs(table: ClassConditionalGenerator | None) -> str:
    if table is None:
        return "z.flatten(1)"
    return {
        "times": "z.flatten(1) * self.tables[0](labels)",
        "plus": "z.flatten(1) + self.tables[0](labels)",
        "before": "torch.cat([self.tables[0](labels), z.flatten(1)], 1)",
    }.get(table.label_position, "torch.cat([z.flatten(1), self.tables[0](labels)], 1)")


def _flags(generator: LoadedGenerator) -> str:
    """The options that the module does not say."""
    flags = "" if generator.latent.prior == "normal" else f" --prior {generator.latent.prior}"
    if generator.output.range is not None:
        flags += " --output-range={:g},{:g}".format(*generator.output.range)
    if generator.classes:
        flags += f" --classes {generator.classes} --condition {generator.condition}"
        flags += " --class-place before" if generator.labels_first else ""
    return flags
