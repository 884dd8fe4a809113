"""DCGAN and its kin: a stack of transposed convolutions on a 1x1 latent, with batch norm or without."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption
from gandiag.errors import LoadError
from gandiag.load.rebuild.chain import Blueprint, Open, Step, conv_step, norm_step, transposed_step
from gandiag.load.rebuild.geometry import CUSTOM, LARGEST, Geometry, parsed, plan, side_after, spelt, ways
from gandiag.load.rebuild.layers import Layer, NotThis, gaps, layers_of
from gandiag.load.rebuild.mlp import between
from gandiag.load.rebuild.outputs import image_output, zoo_final
from gandiag.load.weights import Weights

_FLAGS = "(--image-size or --strides)"


def rebuild(weights: Weights, config: AuditConfig) -> Blueprint:
    """A chain that starts with ConvTranspose2d on (inputs, 1, 1). NotThis if a linear layer or anything unknown is in it."""
    layers = layers_of(weights)
    if not layers or layers[0].kind != "kernel" or any(layer.kind == "linear" for layer in layers):
        raise NotThis("it is not made of convolutions alone")
    first = layers[0]
    spacing = gaps(layers, weights.modules)
    turned = _from_latents(layers)
    return rising(layers, turned, config, Rising(first.shape[2], 1, _finish(layers, spacing, turned, config, zoo_final(weights.beside.get("config")))))


def _from_latents(layers: list[Layer]) -> list[bool]:
    """Which kernels are transposed, the first one among them: a convolution that takes as many channels as it makes would do nothing to one pixel."""
    first = layers[0]
    if first.shape[2] == first.shape[3] and first.makes(first.shape[1]):
        with contextlib.suppress(NotThis):
            return [True, *transposition(layers[1:], first.shape[1])]
    turned = transposition(layers, first.shape[0])
    if not turned[0]:
        raise NotThis(f"{first.key} is {first.shape}: a convolution, which takes an image")
    return turned


def _finish(
    layers: list[Layer], spacing: list[int | None], turned: list[bool], config: AuditConfig, told: tuple[str, str] | None
) -> Callable[[list[Geometry], int], Blueprint]:
    def finish(geometry: list[Geometry], side: int) -> Blueprint:
        steps, channels = kernel_steps(layers, spacing, turned, [(1, 0, 0), *geometry])
        output, final, said = image_output((channels, side, side), spacing[-1], config, told)
        return Blueprint("transposed", tuple(steps), layers[0].shape[0], True, output, final, said)

    return finish


def transposition(layers: list[Layer], channels: int) -> list[bool]:
    """Which kernels are transposed, by chaining channels: ConvTranspose2d is (in, out, k, k), Conv2d (out, in, k, k).

    A square kernel fits both ways; even sizes are then transposed, as convolutions that keep the size have odd ones.
    """
    found = []
    for layer in layers:
        if layer.kind == "norm":
            if layer.shape[0] != channels:
                raise NotThis(f"{layer.name}.running_mean has {layer.shape[0]} entries after {channels} channels")
            found.append(False)
            continue
        into, out, kernel, other = layer.shape
        if kernel != other:
            raise NotThis(f"{layer.key} is {layer.shape}: its kernel is not square")
        up = into == channels and (out != channels or kernel % 2 == 0)
        if (not up and (out != channels or kernel % 2 == 0)) or not layer.makes(out if up else into):
            raise NotThis(f"{layer.key} is {layer.shape}, which does not take the {channels} channels before it")
        channels = out if up else into
        found.append(up)
    return found


@dataclass(frozen=True, slots=True)
class Rising:
    """Transposed kernels from a picture of `side`: of those in the list the first `given` are not open. `norms` stand before the list."""

    side: int
    given: int
    finish: Callable[[list[Geometry], int], Blueprint]
    norms: int = 0


def rising(layers: list[Layer], turned: list[bool], config: AuditConfig, start: Rising) -> Blueprint:
    """The blueprint with customary strides and paddings, or those that lead to --image-size; each is an open question to the norm behind it.
    Those of --strides are none."""
    places = [index for index, up in enumerate(turned) if up][start.given :]
    kernels = [layers[index].shape[2] for index in places]
    if config.strides:
        return _given([layers[index].key for index in places], kernels, config, start)
    found = plan(start.side, kernels, config.image_size)
    if found is None:
        raise NotThis(f"kernels of size {', '.join(map(str, kernels))} have no customary stride; --strides 2/1,… gives each one's stride and padding")
    planned, sides = found
    if len(planned) != len(kernels) or config.image_size not in (None, *sides):
        listed = ", ".join(map(str, sides[:12])) + (", …" if len(sides) > 12 else "")
        raise LoadError(f"--image-size {config.image_size} contradicts the weights: with the strides that gandiag tries their kernels lead to {listed}",
                        f"remove it, or choose from: {listed}; for other strides, --strides 2/1,… (stride and padding of each)")
    behind = [_norm_behind(layers, index) for index in places]
    shown = [norm + start.norms for norm in behind if norm is not None]  # those without one come last
    options = [(chosen, *(other for other in CUSTOM[kernel] if other != chosen)) for kernel, chosen in zip(kernels, planned, strict=True)]
    given = options[: len(shown)]
    asked, fixings = (_strides([layers[place].name for place in places], kernels, given, shown) if config.image_size is None else
                      _ways(kernels, ways(start.side, kernels, config.image_size, given), shown))  # fmt: skip

    def remade(answers: tuple[int, ...]) -> Blueprint:
        fixed = fixings(answers)
        found = plan(start.side, kernels, config.image_size, fixed)
        if found is None or len(found[0]) != len(kernels):
            raise NotThis("no strides lead through its kernels")
        made = start.finish(found[0], final_side(start.side, kernels, found[0]))
        rest = spelt(kernels[len(fixed) :], found[0][len(fixed) :])
        told = (Assumption(f"strides and paddings of the last layers {_FLAGS}", rest, "flag" if config.image_size else "default"),) if rest else ()
        return replace(made, assumptions=(*told, *made.assumptions), open=asked, remade=remade)

    return remade((0,) * len(asked))


def _given(names: list[str], kernels: list[int], config: AuditConfig, start: Rising) -> Blueprint:
    """The blueprint with the strides of --strides. LoadError where they are not one for each kernel, lead nowhere, or elsewhere than --image-size."""
    try:
        geometry = [parsed(part) for part in config.strides or ()]
    except ValueError:
        raise LoadError(f"--strides is {','.join(config.strides or ())}",
                        "give stride/padding of each layer, or stride/padding/output padding: 2/1,2/1,1/0") from None
    if len(geometry) != len(kernels):
        raise LoadError(f"--strides gives {len(geometry)}, and the layers with a stride are {len(kernels)}: {', '.join(names)}",
                        f"give {len(kernels)}: {','.join(['2/1'] * len(kernels))}")
    side = start.side
    for name, kernel, one in zip(names, kernels, geometry, strict=True):
        side, before = side_after(side, kernel, one), side
        if not 1 <= side <= LARGEST:
            raise LoadError(f"--strides contradicts the weights: {name}, {spelt([kernel], [one])}, makes {side} pixels of {before}", "correct --strides")
    if config.image_size not in (None, side):
        raise LoadError(f"--strides leads to {side} pixels, and --image-size is {config.image_size}", "give one of them")
    made = start.finish(geometry, side)
    return replace(made, assumptions=(Assumption("strides and paddings (--strides)", spelt(kernels, geometry), "flag"), *made.assumptions))


Asked = tuple[tuple[Open, ...], Callable[[tuple[int, ...]], list[Geometry]]]  # questions, and from their answers the layers' geometries


def _strides(names: list[str], kernels: list[int], options: list[tuple[Geometry, ...]], shown: list[int]) -> Asked:
    """One question for each layer with a norm behind it."""
    asked = tuple(Open(f"stride and padding of {name} {_FLAGS}", tuple(spelt([kernel], [one]) for one in given), norm, True)
                  for name, kernel, given, norm in zip(names, kernels, options, shown, strict=False) if len(given) > 1)  # fmt: skip

    def fixings(answers: tuple[int, ...]) -> list[Geometry]:
        left = iter(answers)
        return [given[next(left)] if len(given) > 1 else given[0] for given in options]

    return asked, fixings


def _ways(kernels: list[int], found: list[tuple[Geometry, ...]], shown: list[int]) -> Asked:
    """One question for all layers together: alone, none of them could have another stride and the picture still its size."""
    told = tuple(spelt(kernels, path) for path in found)
    asked = (Open(f"strides and paddings {_FLAGS}", told, shown[0], True, last=shown[-1]),) if len(found) > 1 else ()
    return asked, lambda answers: list(found[answers[0] if answers else 0])


def _norm_behind(layers: list[Layer], index: int) -> int | None:
    """Which batch norm is the first behind a layer; None if there is none."""
    norms = [place for place, layer in enumerate(layers) if layer.kind == "norm"]
    return next((norm for norm, place in enumerate(norms) if place > index), None)


def final_side(side: int, kernels: list[int], geometry: list[Geometry]) -> int:
    """The side after these transposed convolutions."""
    for kernel, chosen in zip(kernels, geometry, strict=True):
        side = side_after(side, kernel, chosen)
    return side


def kernel_steps(layers: list[Layer], spacing: list[int | None], turned: list[bool], geometry: list[Geometry]) -> tuple[list[Step], int]:
    """Steps of kernels and norms with activations between them, and the channels at the end. One geometry per transposed kernel."""
    steps: list[Step] = []
    channels, strides = layers[0].shape[0], iter(geometry)
    for index, layer in enumerate(layers):
        if layer.kind == "norm":
            steps.append(norm_step(layer, spatial=True))
        elif turned[index]:
            steps.append(transposed_step(layer, next(strides)))
            channels = layer.shape[1]
        else:
            steps.append(conv_step(layer))
            channels = layer.shape[0]
        if index + 1 < len(layers):
            steps += between(layer, layers[index + 1], spacing[index])
    return steps, channels
