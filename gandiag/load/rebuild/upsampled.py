"""Convolutions with doublings of the side between them: where they stand and how they interpolate is not in the weights."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption
from gandiag.errors import LoadError
from gandiag.load.rebuild.chain import SHUFFLES, Blueprint, Open, Step, conv_step, norm_step, upsample_step
from gandiag.load.rebuild.layers import Layer, NotThis
from gandiag.load.rebuild.mlp import activated
from gandiag.load.rebuild.outputs import image_output

MODES = ("nearest", "bilinear")
_WHAT = "upsampling (--upsampling, --image-size)"
_ORDER = "order of shuffled pixels (--upsampling)"
_LARGEST = 1024  # pixels that custom may lead to
_MANY = 12  # ways to place the doublings that are tried


@dataclass(frozen=True, slots=True)
class Body:
    """What stands behind the reshape, and the steps in front of it with their batch norms."""

    inputs: int
    flat: tuple[Step, ...]
    layers: list[Layer]
    spacing: list[int | None]
    norms: int
    lead: int | None = 0  # modules without weights in front of the first layer, the reshape not among them

    def whole(self, steps: list[Step], shape: tuple[int, ...], config: AuditConfig) -> Blueprint:
        """The blueprint of these steps."""
        output, final, said = image_output(shape, self.spacing[-1], config)
        return Blueprint("projected", (*self.flat, *steps), self.inputs, False, output, final, said)

    @property
    def kernels(self) -> list[int]:
        return [index for index, layer in enumerate(self.layers) if layer.kind == "kernel"]


@dataclass(frozen=True, slots=True)
class Way:
    """One reading: doublings before these layers, by this interpolation. `bare`: no activation behind the first norm."""

    mode: str
    doubled: tuple[int, ...]
    bare: bool = False


def shuffles(layers: list[Layer], channels: int) -> tuple[int, ...]:
    """The layers that take a quarter of the channels that the convolution before them makes: pixels are shuffled in between.

    The place behind the last layer is one of them where that makes twelve channels, which are three of a picture twice as large.
    Empty where the channels follow each other as they are. NotThis where neither explains them.
    """
    found = []
    for index, layer in enumerate(layers):
        if layer.kind == "kernel" and (layer.shape[2] != layer.shape[3] or layer.shape[2] % 2 == 0 or not layer.makes(layer.shape[0])):
            raise NotThis(f"{layer.key} is {layer.shape}: no convolution that keeps the side")
        takes = layer.shape[0] if layer.kind == "norm" else layer.shape[1]
        if takes * 4 == channels and index > 0:
            found.append(index)
        elif takes != channels:
            raise NotThis(f"{layer.name} takes {takes} channels after {channels}")
        channels = takes if layer.kind == "norm" else layer.shape[0]
    return (*found, len(layers)) if channels == 4 * 3 else tuple(found)


def shuffled(body: Body, side: int, places: tuple[int, ...], config: AuditConfig) -> Blueprint:
    """Doublings that the shapes show; batch norm tells in which order the pixels are taken from the channels."""
    size = side * 2 ** len(places)
    if config.image_size not in (None, size):
        raise LoadError(f"--image-size {config.image_size} contradicts the weights, whose pixel shuffles lead to {size}", "remove --image-size")
    if config.upsampling in MODES:
        raise LoadError(f"--upsampling {config.upsampling} contradicts the weights, which shuffle pixels", f"remove it, or choose from: {', '.join(SHUFFLES)}")
    spacing = [gap - 1 if gap and index + 1 in places else gap for index, gap in enumerate(body.spacing)]  # the shuffle is one of the modules there
    ways = [Way(mode, places) for mode in ((config.upsampling,) if config.upsampling else SHUFFLES)]
    return _told(replace(body, spacing=spacing), side, ways, "flag" if config.upsampling else "default", config)


def upsampled(body: Body, side: int, config: AuditConfig) -> Blueprint:
    """The blueprint of the customary way; the others are an open question where a batch norm stands behind a convolution.

    LoadError where nothing says how large the picture becomes.
    """
    if config.upsampling in SHUFFLES:
        raise LoadError(f"--upsampling {config.upsampling} contradicts the weights, whose channels follow each other", f"choose from: {', '.join(MODES)}")
    modes = (config.upsampling,) if config.upsampling else MODES
    found, source = _places(body, side, config)
    ways = [Way(mode, doubled, bare) for doubled, bare in found for mode in (modes if doubled else modes[:1])]
    if len({len(way.doubled) for way in ways}) > 1 and not _norms(body) and source == "default":
        raise LoadError("the weights do not say where the picture is upsampled", "give the size of the output: --image-size N")
    return _told(body, side, ways, source, config)


def _norms(body: Body) -> list[int]:
    return [index for index, layer in enumerate(body.layers) if layer.kind == "norm" and index > body.kernels[0]]


def _told(body: Body, side: int, ways: list[Way], source: str, config: AuditConfig) -> Blueprint:
    """The blueprint of the first way; a question about the others, where a norm can answer it."""
    norms = _norms(body)
    what = _ORDER if ways[0].mode in SHUFFLES else _WHAT
    names = [*(layer.name for layer in body.layers), "the output"]
    told = [f"{way.mode}, before {', '.join(names[i] for i in way.doubled) or 'no layer'}: {side} to {side * 2 ** len(way.doubled)} pixels" for way in ways]
    deepest = body.norms + sum(layer.kind == "norm" for layer in body.layers) - 1
    asked = (Open(what, tuple(told), deepest + 1 - len(norms), last=deepest),) if norms and len(ways) > 1 else ()

    def remade(answers: tuple[int, ...]) -> Blueprint:
        chosen = answers[0] if answers else 0
        way = ways[chosen]
        size = side * 2 ** len(way.doubled)
        channels = body.layers[body.kernels[-1]].shape[0] // (4 if len(body.layers) in way.doubled else 1)
        made = body.whole(_steps(body, way), (channels, size, size), config)
        settled = () if asked else (Assumption(what, told[chosen], source),)
        return replace(made, assumptions=(*settled, *made.assumptions), open=asked, remade=remade)

    return remade((0,) * len(asked))


def _places(body: Body, side: int, config: AuditConfig) -> tuple[list[tuple[tuple[int, ...], bool]], str]:
    """(layers with a doubling before them, bare) of every way that fits, the customary one first; and who said so."""
    kernels, spacing = body.kernels, body.spacing
    bare = len(body.layers) > 1 and body.layers[0].kind == "norm" and spacing[0] == 1
    room = [body.lead if i == 0 else spacing[i - 1] for i in kernels]
    seen = tuple(i for i, modules in zip(kernels, room, strict=True) if (modules or 0) >= 2)
    between = room[1:] or [None if kernels[0] == 0 else room[0]]  # nothing stands between a reshape and a lone convolution that names could show
    known = not any(modules is None for modules in between)
    # One module between the first norm and its convolution: PyTorch-GAN's doubling, or an activation.
    if bare and 1 in kernels:
        ways = [(tuple(sorted({*seen, 1})), True), (seen, False)]
    else:
        ways = [(seen, False)] if seen or known else _anywhere(kernels, body.layers[0].kind == "norm")
    ways = [way for way in ways if config.image_size is not None or side * 2 ** len(way[0]) <= _LARGEST]
    if not ways or (config.image_size is None and not (seen or known) and len(ways[0][0]) < len(kernels) - 1):
        raise LoadError(f"the weights do not say where the picture is upsampled: {len(kernels)} convolutions and {side} pixels",
                        "give the size of the output: --image-size N")
    if config.image_size is None:
        return ways, "metadata" if seen or known else "default"
    fitting = [way for way in ways if side * 2 ** len(way[0]) == config.image_size]
    return (fitting, "metadata" if seen or known else "flag") if fitting else (_by_size(kernels, side, config.image_size), "flag")


def _anywhere(kernels: list[int], normed: bool) -> list[tuple[tuple[int, ...], bool]]:
    """Before every convolution but the one that makes the picture, or before that too, or from the second one on; or as PyTorch-GAN
    has it, where a norm comes first."""
    starts = [tuple(kernels[begin : begin + count]) for count in range(len(kernels), 0, -1) for begin in (0, 1) if begin + count <= len(kernels)]
    usual = tuple(kernels[:-1])
    ways = [(doubled, False) for doubled in [usual, *(start for start in starts[:_MANY] if start != usual), *([()] if usual else [])]]
    return [*ways, (usual, True)] if normed and usual else ways


def _by_size(kernels: list[int], side: int, size: int) -> list[tuple[tuple[int, ...], bool]]:
    """Every way to double as often as leads to --image-size, the earliest layers first."""
    times = max(0, (size // side).bit_length() - 1)
    if side * 2**times != size or times > len(kernels):
        listed = ", ".join(str(side * 2**n) for n in range(len(kernels) + 1))
        raise LoadError(f"--image-size {size} contradicts the weights, which lead to {listed}", f"remove it, or choose from: {listed}")
    return [(doubled, False) for doubled in itertools.islice(itertools.combinations(kernels, times), _MANY)]


def _steps(body: Body, way: Way) -> list[Step]:
    steps: list[Step] = []
    for index, layer in enumerate(body.layers):
        if index in way.doubled:
            steps.append(upsample_step(way.mode))
        taken = way.bare and index == 0  # PyTorch-GAN: this norm alone has the usual eps
        steps.append(norm_step(layer, spatial=True, ordinary=taken) if layer.kind == "norm" else conv_step(layer))
        if index + 1 < len(body.layers) and not taken and activated(layer, body.layers[index + 1], body.spacing[index]):
            steps.append(Step("activation"))
    if len(body.layers) in way.doubled:
        steps.append(upsample_step(way.mode))
    return steps
