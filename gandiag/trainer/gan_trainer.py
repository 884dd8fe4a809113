"""Two players and a data set: one step of the game, from explicit random numbers, and its whole state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.interfaces import LatentSpec
from gandiag.trainer.networks import make_discriminator, make_generator
from gandiag.trainer.recipes import Recipe
from gandiag.trainer.remedies.base import Loss, Remedy, TrainingBatch
from gandiag.trainer.remedies.losses import LOSSES
from gandiag.trainer.remedies.packing import PackSamples
from gandiag.trainer.remedies.unrolled import unroll_discriminator
from gandiag.trainer.toy_data import Dataset
from gandiag.trainer.unrolling.adam import AdamState
from gandiag.trainer.unrolling.fast_hvp import StackGradients, build_layer_stack
from gandiag.trainer.unrolling.fast_hvp_relu import ShallowGradients, is_supported
from gandiag.trainer.unrolling.flat_parameters import FlatModule
from gandiag.trainer.unrolling.hvp import AutogradGradients, DiscriminatorGradients


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """What does not change during a game. `ahead`: steps of D that G looks ahead; `z_scale` multiplies the latents."""

    data: Dataset
    loss: Loss
    remedy: Remedy
    batch_size: int
    latent: LatentSpec
    z_scale: float = 1.0
    unroll_steps: int = 0


class GANTrainer:
    """G against D. `step()` is a function of the state alone: `state()` taken and `restore`d gives the same steps to the bit.

    D and G step at the same time, from gradients at the same point, as in Metz et al. 2016, equations 10 and 11; with
    critic > 1 D takes the additional steps first, each on a minibatch of its own.
    """

    def __init__(
        self, setup: TrainingSetup, generator: FlatModule, discriminator: FlatModule, rng: torch.Generator
    ) -> None:
        self.setup = setup
        self.generator = generator
        self.discriminator = discriminator
        self.rng = rng
        self.steps = 0
        self._rowwise = (
            setup.remedy.pack_size == 1
            and not setup.remedy.uses_batch_statistics
            and not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in discriminator.net.modules())
        )
        self._buffers = list(discriminator.net.buffers())
        plain = self._rowwise and setup.remedy.discriminator_penalty is None and setup.remedy.generator_penalty is None
        self._shallow_gradients = (
            ShallowGradients(discriminator, setup.loss)
            if plain and is_supported(discriminator.net, setup.loss)
            else None
        )
        self._stack_gradients = self._as_stack()

    def step(self) -> tuple[float, float]:
        """One step of both players; their losses at its start (G's, where it looks ahead, at the end of that)."""
        for _ in range(self.setup.remedy.discriminator_steps - 1):
            self._critic_step()
        z, real, fake = self._draw_minibatch()
        leaf = fake.detach().requires_grad_()
        loss_d, loss_g, by_fake = (self._look_ahead if self.setup.unroll_steps else self._look)(z, real, leaf)
        gradients = torch.autograd.grad(fake, self.generator.parameters, by_fake, allow_unused=True)
        self.generator.step(self.generator.flatten(gradients))
        self.steps += 1
        return loss_d, loss_g

    def sample_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Latents at the scale of the training, (n, *latent.shape)."""
        latent = self.setup.latent
        if latent.prior == "uniform":
            return torch.rand(n, *latent.shape, generator=rng).mul_(2).sub_(1).mul_(self.setup.z_scale)
        z = torch.randn(n, *latent.shape, generator=rng)
        return z if self.setup.z_scale == 1.0 else z.mul_(self.setup.z_scale)

    def generate_samples(self, n: int, seed: int) -> Tensor:
        """n samples of G in eval mode, (n, *shape), of latents that only `seed` decides."""
        net, rng = self.generator.net, torch.Generator().manual_seed(seed)
        net.eval()
        with torch.no_grad():
            parts = [net(self.sample_latents(min(500, n - start), rng)) for start in range(0, n, 500)]
        net.train()
        return torch.cat(parts)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and numbers."""
        sides = {"generator": self.generator, "discriminator": self.discriminator}
        kept = {
            name: {"adam": tuple(player.state), "buffers": [entry.clone() for entry in player.net.buffers()]}
            for name, player in sides.items()
        }
        return {**kept, "rng": self.rng.get_state(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        for name, player in (("generator", self.generator), ("discriminator", self.discriminator)):
            player.load_state(AdamState(*state[name]["adam"]))
            for entry, kept in zip(player.net.buffers(), state[name]["buffers"], strict=True):
                entry.copy_(kept)
        self.rng.set_state(state["rng"])
        self.steps = state["steps"]

    def _draw_minibatch(self) -> tuple[Tensor, Tensor, Tensor]:
        real = self.setup.data.draw(self.setup.batch_size, self.rng)  # (B, *shape)
        z = self.sample_latents(self.setup.batch_size, self.rng)
        return z, real, self.generator.net(z)

    def _critic_step(self) -> None:
        z, real, fake = self._draw_minibatch()
        loss = self._compute_losses(z, real, fake.detach(), both=False)[0]
        self._step_discriminator(torch.autograd.grad(loss, self.discriminator.parameters, allow_unused=True))

    def _look(self, z: Tensor, real: Tensor, fake: Tensor) -> tuple[float, float, Tensor]:
        """Both gradients at the present D."""
        if self._shallow_gradients is not None:
            player, slopes = self.discriminator, self._shallow_gradients.set_minibatch(real, fake)
            slope, (loss, _, by_fake) = (
                slopes.discriminator_gradient(player.state),
                slopes.generator_gradient(player.state),
            )
            player.step(slope.gradient)
            return slope.loss(), loss, by_fake
        if self._stack_gradients is not None and not self._rowwise:
            found, gradient, loss, by_fake = self._stack_gradients.set_minibatch(real, fake).simultaneous_gradients(
                self.discriminator.state
            )
            self.discriminator.step(gradient)
            return found, loss, by_fake
        loss_d, loss_g = self._compute_losses(z, real, fake)
        gradients = torch.autograd.grad(loss_d, self.discriminator.parameters, retain_graph=True, allow_unused=True)
        (by_fake,) = torch.autograd.grad(loss_g, fake)
        self._step_discriminator(gradients)
        return loss_d.item(), loss_g.item(), by_fake

    def _look_ahead(self, z: Tensor, real: Tensor, fake: Tensor) -> tuple[float, float, Tensor]:
        """G's gradient through `ahead` steps of D, of which D takes the first."""
        kept = [entry.clone() for entry in self._buffers]
        slopes: DiscriminatorGradients = AutogradGradients(
            self.discriminator, lambda made: self._compute_losses(z, real, made), fake
        )
        if self._shallow_gradients is not None:
            slopes = self._shallow_gradients.set_minibatch(real, fake)
        elif self._stack_gradients is not None:
            slopes = self._stack_gradients.set_minibatch(real, fake)
        found = unroll_discriminator(slopes, self.discriminator.state, self.setup.unroll_steps, self.discriminator.adam)
        for entry, before in zip(self._buffers, kept, strict=True):
            entry.copy_(before)
        self.discriminator.load_state(found.first_state)
        return found.loss_d, found.loss_g, found.fake_gradient

    def _as_stack(self) -> StackGradients | None:
        rules = self.setup
        if rules.remedy.discriminator_penalty is not None or rules.remedy.generator_penalty is not None:
            return None
        stack = build_layer_stack(self.discriminator.net, rules.data.output, rules.batch_size, rules.loss)
        return None if stack is None else StackGradients(self.discriminator, stack, rules.loss)

    def _step_discriminator(self, gradients: tuple[Tensor | None, ...]) -> None:
        self.discriminator.step(self.discriminator.flatten(gradients))

    def _compute_losses(self, z: Tensor, real: Tensor, fake: Tensor, both: bool = True) -> tuple[Tensor, Tensor]:
        rules, remedy = self.setup, self.setup.remedy
        logits = self._judge(real, fake)
        loss_d = rules.loss.discriminator(*logits)
        loss_g = rules.loss.generator(*logits) if both else loss_d
        if remedy.discriminator_penalty is None and remedy.generator_penalty is None:
            return loss_d, loss_g
        turn = TrainingBatch(
            z, real, fake, self.discriminator.net, lambda *shape: torch.rand(*shape, generator=self.rng)
        )
        if remedy.discriminator_penalty is not None:
            loss_d = loss_d + remedy.discriminator_penalty(turn)
        return loss_d, loss_g + remedy.generator_penalty(
            turn
        ) if remedy.generator_penalty is not None and both else loss_g

    def _judge(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """D's logits: in one pass where D judges each sample by itself, else minibatch by minibatch."""
        net, size = self.discriminator.net, len(real)
        if not self._rowwise:
            return net(real), net(fake)
        return net(torch.cat([real, fake])).split(size)  # type: ignore[no-any-return]


NetworkFactory = Callable[[int], tuple[nn.Module, nn.Module]]  # samples that D judges together -> fresh G and D


def make_trainer(
    recipe: Recipe,
    dataset: Dataset,
    remedy: Remedy,
    *,
    seed: int,
    unroll_steps: int,
    z_scale: float = 1.0,
    network_factory: NetworkFactory | None = None,
    latent: LatentSpec | None = None,
) -> GANTrainer:
    """A game at its start. Networks, data and latents have a generator each: the same seed gives the same of each under every remedy.

    `networks` and `latent` in place of the recipe's.
    """
    weights, dressing, rng = (torch.Generator().manual_seed(3 * seed + part) for part in range(3))
    with torch.random.fork_rng(devices=[]):  # modules fill themselves from the global state before they are initialised
        torch.random.manual_seed(seed)
        generator, discriminator = (
            network_factory(remedy.pack_size) if network_factory else _networks(recipe, dataset, remedy, weights)
        )
        if remedy.pack_size > 1:
            discriminator = nn.Sequential(
                PackSamples(remedy.pack_size),
                *(discriminator if isinstance(discriminator, nn.Sequential) else [discriminator]),
            )
        if remedy.wrap_discriminator is not None:
            discriminator = remedy.wrap_discriminator(discriminator, dressing)
            with torch.no_grad():
                discriminator(
                    dataset.draw(recipe.batch, dressing)
                )  # layers that start from the first minibatch of real samples
    shape = latent or LatentSpec(recipe.latent, recipe.prior)  # type: ignore[arg-type]
    rules = TrainingSetup(
        dataset, remedy.loss or LOSSES[recipe.loss], remedy, recipe.batch, shape, z_scale, unroll_steps
    )
    return GANTrainer(
        rules, FlatModule(generator, recipe.adam_generator), FlatModule(discriminator, recipe.adam_discriminator), rng
    )


def _networks(recipe: Recipe, data: Dataset, remedy: Remedy, weights: torch.Generator) -> tuple[nn.Module, nn.Module]:
    generator = make_generator(recipe.generator, recipe.latent, data.output, weights)
    return generator, make_discriminator(recipe.discriminator, data.output, remedy.pack_size, weights)
