"""One training step of a GAN from explicit random numbers, and its complete state."""

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
from gandiag.trainer.unrolling.fast_hvp import make_fast_gradients
from gandiag.trainer.unrolling.flat_parameters import FlatModule
from gandiag.trainer.unrolling.hvp import AutogradGradients, DiscriminatorGradients

SAMPLING_BATCH_SIZE = 500


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """What stays constant during training.

    `unroll_steps`: steps of D that G differentiates through, 0 for none. `z_scale` multiplies the latents.
    """

    data: Dataset
    loss: Loss
    remedy: Remedy
    batch_size: int
    latent: LatentSpec
    z_scale: float = 1.0
    unroll_steps: int = 0


class GANTrainer:
    """Trains G against D.

    `step()` depends on the state alone: loading a `state_dict()` and going on gives the same weights bit for bit. D
    and G step simultaneously, from gradients at the same point, as in Metz et al. 2016, equations 10 and 11. If the
    remedy asks for more than one step of D per step of G, D takes the extra ones first, each on its own minibatch.
    """

    def __init__(
        self, setup: TrainingSetup, generator: FlatModule, discriminator: FlatModule, rng: torch.Generator
    ) -> None:
        self.setup = setup
        self.generator = generator
        self.discriminator = discriminator
        self.rng = rng
        self.steps = 0
        # Whether D's logit for a sample is independent of the rest of the minibatch.
        self._is_samplewise = (
            setup.remedy.pack_size == 1
            and not setup.remedy.uses_batch_statistics
            and not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in discriminator.net.modules())
        )
        self._buffers = list(discriminator.net.buffers())
        has_penalty = setup.remedy.discriminator_penalty is not None or setup.remedy.generator_penalty is not None
        self._fast_gradients = (
            None if has_penalty else make_fast_gradients(discriminator, setup.data.output, setup.loss)
        )

    def step(self) -> tuple[float, float]:
        """Take one step of both networks.

        Returns D's and G's loss before the step; with unrolling, G's loss is the one after D's unrolled steps.
        """
        for _ in range(self.setup.remedy.discriminator_steps - 1):
            self._extra_discriminator_step()
        z, real, fake = self._draw_minibatch()
        leaf = fake.detach().requires_grad_()
        update = self._unrolled_update if self.setup.unroll_steps else self._simultaneous_update
        loss_d, loss_g, by_fake = update(z, real, leaf)
        gradients = torch.autograd.grad(fake, self.generator.parameters, by_fake, allow_unused=True)
        self.generator.step(self.generator.flatten(gradients))
        self.steps += 1
        return loss_d, loss_g

    def sample_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw latents at the training scale, (n, *latent.shape)."""
        latent = self.setup.latent
        if latent.prior == "uniform":
            return torch.rand(n, *latent.shape, generator=rng).mul_(2).sub_(1).mul_(self.setup.z_scale)
        z = torch.randn(n, *latent.shape, generator=rng)
        return z if self.setup.z_scale == 1.0 else z.mul_(self.setup.z_scale)

    def generate_samples(self, n: int, seed: int) -> Tensor:
        """Generate n samples in eval mode, (n, *shape), from latents that depend on `seed` alone."""
        net, rng = self.generator.net, torch.Generator().manual_seed(seed)
        size = SAMPLING_BATCH_SIZE
        net.eval()
        with torch.no_grad():
            batches = [net(self.sample_latents(min(size, n - start), rng)) for start in range(0, n, size)]
        net.train()
        return torch.cat(batches)

    def state_dict(self) -> dict[str, Any]:
        """Return everything the next step depends on, as tensors and numbers."""
        networks = {
            name: {"adam": tuple(flat.state), "buffers": [buffer.clone() for buffer in flat.net.buffers()]}
            for name, flat in self._networks().items()
        }
        return {**networks, "rng": self.rng.get_state(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict()`."""
        for name, flat in self._networks().items():
            flat.load_state(AdamState(*state[name]["adam"]))
            for buffer, saved in zip(flat.net.buffers(), state[name]["buffers"], strict=True):
                buffer.copy_(saved)
        self.rng.set_state(state["rng"])
        self.steps = state["steps"]

    def _networks(self) -> dict[str, FlatModule]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def _draw_minibatch(self) -> tuple[Tensor, Tensor, Tensor]:
        real = self.setup.data.draw(self.setup.batch_size, self.rng)  # (B, *shape)
        z = self.sample_latents(self.setup.batch_size, self.rng)
        return z, real, self.generator.net(z)

    def _extra_discriminator_step(self) -> None:
        z, real, fake = self._draw_minibatch()
        loss = self._discriminator_loss(z, real, fake.detach())
        self._step_discriminator(torch.autograd.grad(loss, self.discriminator.parameters, allow_unused=True))

    def _simultaneous_update(self, z: Tensor, real: Tensor, fake: Tensor) -> tuple[float, float, Tensor]:
        """Step D, and return both losses and G's gradient by `fake`, all at D's parameters before the step."""
        loss_d, loss_g = self._compute_losses(z, real, fake)
        gradients = torch.autograd.grad(loss_d, self.discriminator.parameters, retain_graph=True, allow_unused=True)
        (by_fake,) = torch.autograd.grad(loss_g, fake)
        self._step_discriminator(gradients)
        return loss_d.item(), loss_g.item(), by_fake

    def _unrolled_update(self, z: Tensor, real: Tensor, fake: Tensor) -> tuple[float, float, Tensor]:
        """Return both losses and G's gradient by `fake` through the unrolled steps of D; D takes the first of them."""
        saved_buffers = [buffer.clone() for buffer in self._buffers]
        gradients: DiscriminatorGradients
        if self._fast_gradients is not None:
            gradients = self._fast_gradients.set_minibatch(real, fake)
        else:
            gradients = AutogradGradients(
                self.discriminator, lambda samples: self._compute_losses(z, real, samples), fake
            )
        unrolled = unroll_discriminator(
            gradients, self.discriminator.state, self.setup.unroll_steps, self.discriminator.adam
        )
        for buffer, saved in zip(self._buffers, saved_buffers, strict=True):
            buffer.copy_(saved)
        self.discriminator.load_state(unrolled.first_state)
        return unrolled.loss_d, unrolled.loss_g, unrolled.fake_gradient

    def _step_discriminator(self, gradients: tuple[Tensor | None, ...]) -> None:
        self.discriminator.step(self.discriminator.flatten(gradients))

    def _discriminator_loss(self, z: Tensor, real: Tensor, fake: Tensor) -> Tensor:
        loss = self.setup.loss.discriminator(*self._compute_logits(real, fake))
        penalty = self.setup.remedy.discriminator_penalty
        return loss if penalty is None else loss + penalty(self._make_batch(z, real, fake))

    def _compute_losses(self, z: Tensor, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return D's and G's loss with the remedy's penalties, from one evaluation of D."""
        remedy, logits = self.setup.remedy, self._compute_logits(real, fake)
        loss_d, loss_g = self.setup.loss.discriminator(*logits), self.setup.loss.generator(*logits)
        if remedy.discriminator_penalty is not None:
            loss_d = loss_d + remedy.discriminator_penalty(self._make_batch(z, real, fake))
        if remedy.generator_penalty is not None:
            loss_g = loss_g + remedy.generator_penalty(self._make_batch(z, real, fake))
        return loss_d, loss_g

    def _make_batch(self, z: Tensor, real: Tensor, fake: Tensor) -> TrainingBatch:
        return TrainingBatch(
            z, real, fake, self.discriminator.net, lambda *shape: torch.rand(*shape, generator=self.rng)
        )

    def _compute_logits(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return D's logits: one pass if D is samplewise, else a pass for each half of the minibatch."""
        net, size = self.discriminator.net, len(real)
        if not self._is_samplewise:
            return net(real), net(fake)
        real_logits, fake_logits = net(torch.cat([real, fake])).split(size)
        return real_logits, fake_logits


NetworkFactory = Callable[[int], tuple[nn.Module, nn.Module]]  # pack size -> new G and D


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
    """Return a trainer before its first step.

    Networks, a remedy's layers, and data with latents each have their own random generator, so a seed gives the same
    networks, data and latents under every remedy. `network_factory` and `latent` replace the recipe's.
    """
    weights_rng, layers_rng, rng = (torch.Generator().manual_seed(3 * seed + part) for part in range(3))
    with torch.random.fork_rng(devices=[]):  # modules draw from the global state before they are initialized
        torch.random.manual_seed(seed)
        if network_factory is not None:
            generator, discriminator = network_factory(remedy.pack_size)
        else:
            generator = make_generator(recipe.generator, recipe.latent, dataset.output, weights_rng)
            discriminator = make_discriminator(recipe.discriminator, dataset.output, remedy.pack_size, weights_rng)
        discriminator = _apply_remedy(discriminator, remedy, dataset.draw, recipe.batch, layers_rng)
    setup = TrainingSetup(
        dataset,
        remedy.loss or LOSSES[recipe.loss],
        remedy,
        recipe.batch,
        latent or LatentSpec(recipe.latent, recipe.prior),
        z_scale,
        unroll_steps,
    )
    return GANTrainer(
        setup, FlatModule(generator, recipe.adam_generator), FlatModule(discriminator, recipe.adam_discriminator), rng
    )


def _apply_remedy(
    discriminator: nn.Module,
    remedy: Remedy,
    draw: Callable[[int, torch.Generator], Tensor],
    batch_size: int,
    rng: torch.Generator,
) -> nn.Module:
    """Add packing and the remedy's layers to D."""
    if remedy.pack_size > 1:
        layers = discriminator if isinstance(discriminator, nn.Sequential) else [discriminator]
        discriminator = nn.Sequential(PackSamples(remedy.pack_size), *layers)
    if remedy.wrap_discriminator is not None:
        discriminator = remedy.wrap_discriminator(discriminator, rng)
        with torch.no_grad():
            discriminator(draw(batch_size, rng))  # some layers initialize from their first minibatch of real samples
    return discriminator
