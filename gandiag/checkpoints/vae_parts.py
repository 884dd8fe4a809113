"""The decoder in the state dict of a variational autoencoder: what maps latents N(0, 1) to samples.

Encoder and decoder often share one state dict. The decoder may have several parts beside each other (decoder_input,
decoder, final_layer), or no name at all: fc1, two heads of the same shape for mean and variance, then layers that lead
from as many latents back to the inputs' width (pytorch/examples).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

_ENCODER = re.compile(r"(encoder|enc|encode)(_?(layers?|net|conv|fc|block|input))?(_?\d+)*")
_HEAD = re.compile(
    r"(fc|linear|dense|hidden2|h2|to|z|q|embedding)?_?(mu|mean|loc|logvar|log_var|logvariance|log_?variance|log_?std|"
    r"var|std|sigma|log_?sigma|logsigma|log_covariance)(_?(layer|fc|head|z))?"
)
_DECODER = re.compile(r"(decoder|dec|decode)(_?\w+)?", re.IGNORECASE)


def find_decoder_heads(heads: Sequence[str]) -> list[str]:
    """The first parts of the names that belong to the decoder; empty unless encoder and decoder are both named."""
    lower = {head: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", head).lower() for head in heads}
    if not any(_ENCODER.fullmatch(name) for name in lower.values()):
        return []
    rest = [head for head, name in lower.items() if not (_ENCODER.fullmatch(name) or _HEAD.fullmatch(name))]
    return rest if any(_DECODER.fullmatch(lower[head]) for head in rest) else []


def find_unnamed_decoder(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the decoder's tensors in an autoencoder of linear layers; empty where the shapes are not one's.

    One layer takes the samples; two in a row of the same shape narrow to the latents; the next takes as many, and the
    last gives as many values as the first takes.
    """
    names = [name for name in tensors if name.endswith("weight")]
    if any(tensors[name].ndim != 2 for name in names) or len(names) < 5:
        return []
    shapes = [tuple(tensors[name].shape) for name in names]
    if shapes[0][1] != shapes[-1][0]:
        return []
    for index in range(1, len(shapes) - 2):
        latent, width = shapes[index]
        is_pair = shapes[index] == shapes[index + 1] and latent < width
        if is_pair and shapes[index - 1][0] == width and shapes[index + 2][1] == latent:
            keys = list(tensors)
            return keys[keys.index(names[index + 2]) :]
    return []
