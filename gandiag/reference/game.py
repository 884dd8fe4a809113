"""Two players and a data set: one step of the game, from explicit random numbers, and its whole state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.contracts import Latent
from gandiag.reference.adam import AdamState
from gandiag.reference.data import Dataset
from gandiag.reference.nets import make_discriminator, make_generator
from gandiag.reference.objectives.contract import Loss, Remedy, Turn
from gandiag.reference.objectives.none import LOSSES
from gandiag.reference.objectives.packing import Pack
from gandiag.reference.objectives.unrolled import look_ahead
from gandiag.reference.player import Player
from gandiag.reference.recipes import Recipe
from gandiag.reference.shallow import Shallow, covers
from gandiag.reference.slopes import Autograd, Slopes
from gandiag.reference.stack import Stacked, stack_of


@dataclass(frozen=True, slots=True)
class Rules:
    """What does not change during a game. `ahead`: steps of D that G looks ahead; `z_scale` multiplies the latents."""

    data: Dataset
    loss: Loss
    remedy: Remedy
    batch: int
    latent: Latent
    z_scale: float = 1.0
    ahead: int = 0


class Game:
    """G against D. `step()` is a function of the state alone: `state()` taken and `restore`d gives the same steps to the bit.

    D and G step at the same time, from gradients at the same point, as in Metz et al. 2016, equations 10 and 11; with
    critic > 1 D takes the additional steps first, each on a minibatch of its own.
    """

    def __init__(self, rules: Rules, generator: Player, discriminator: Player, rng: torch.Generator) -> None:
        self.rules = rules
        self.generator = generator
        self.discriminator = discriminator
        self.rng = rng
        self.steps = 0
        self._rowwise = rules.remedy.pack == 1 and not rules.remedy.batchwise and not any(
            isinstance(part, nn.modules.batchnorm._BatchNorm) for part in discriminator.net.modules())
        self._buffers = list(discriminator.net.buffers())
        plain = self._rowwise and rules.remedy.penalty is None and rules.remedy.reward is None
        self._shallow = Shallow(discriminator, rules.loss) if plain and covers(discriminator.net, rules.loss) else None
        self._stacked = self._as_stack()

    def step(self) -> tuple[float, float]:
        """One step of both players; their losses at its start (G's, where it looks ahead, at the end of that)."""
        for _ in range(self.rules.remedy.critic - 1):
            self._critic_step()
        z, real, fake = self._minibatch()
        leaf = fake.detach().requires_grad_()
        loss_d, loss_g, by_fake = (self._look_ahead if self.rules.ahead else self._look)(z, real, leaf)
        gradients = torch.autograd.grad(fake, self.generator.parameters, by_fake, allow_unused=True)
        self.generator.step(self.generator.flat(gradients))
        self.steps += 1
        return loss_d, loss_g

    def latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Latents at the scale of the training, (n, *latent.shape)."""
        latent = self.rules.latent
        if latent.prior == "uniform":
            return torch.rand(n, *latent.shape, generator=rng).mul_(2).sub_(1).mul_(self.rules.z_scale)
        z = torch.randn(n, *latent.shape, generator=rng)
        return z if self.rules.z_scale == 1.0 else z.mul_(self.rules.z_scale)

    def sample(self, n: int, seed: int) -> Tensor:
        """n samples of G in eval mode, (n, *shape), of latents that only `seed` decides."""
        net, rng = self.generator.net, torch.Generator().manual_seed(seed)
        net.eval()
        with torch.no_grad():
            parts = [net(self.latents(min(500, n - start), rng)) for start in range(0, n, 500)]
        net.train()
        return torch.cat(parts)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and numbers."""
        sides = {"generator": self.generator, "discriminator": self.discriminator}
        kept = {name: {"adam": tuple(player.state), "buffers": [entry.clone() for entry in player.net.buffers()]} for name, player in sides.items()}
        return {**kept, "rng": self.rng.get_state(), "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        for name, player in (("generator", self.generator), ("discriminator", self.discriminator)):
            player.show(AdamState(*state[name]["adam"]))
            for entry, kept in zip(player.net.buffers(), state[name]["buffers"], strict=True):
                entry.copy_(kept)
        self.rng.set_state(state["rng"])
        self.steps = state["steps"]

    def _minibatch(self) -> tuple[Tensor, Tensor, Tensor]:
        real = self.rules.data.draw(self.rules.batch, self.rng)  # (B, *shape)
        z = self.latents(self.rules.batch, self.rng)
        return z, real, self.generator.net(z)

    def _critic_step(self) -> None:
        z, real, fake = self._minibatch()
        loss = self._losses(z, real, fake.detach(), both=False)[0]
        self._step_discriminator(torch.autograd.grad(loss, self.discriminator.parameters, allow_unused=True))

    def _look(self, z: Tensor, real: Tensor, fake: Tensor) -> tuple[float, float, Tensor]:
        """Both gradients at the present D."""
        if self._shallow is not None:
            player, slopes = self.discriminator, self._shallow.on(real, fake)
            slope, (loss, _, by_fake) = slopes.descend(player.state), slopes.final(player.state)
            player.step(slope.gradient)
            return slope.loss(), loss, by_fake
        if self._stacked is not None and not self._rowwise:
            found, gradient, loss, by_fake = self._stacked.on(real, fake).look(self.discriminator.state)
            self.discriminator.step(gradient)
            return found, loss, by_fake
        loss_d, loss_g = self._losses(z, real, fake)
        gradients = torch.autograd.grad(loss_d, self.discriminator.parameters, retain_graph=True, allow_unused=True)
        (by_fake,) = torch.autograd.grad(loss_g, fake)
        self._step_discriminator(gradients)
        return loss_d.item(), loss_g.item(), by_fake

    def _look_ahead(self, z: Tensor, real: Tensor, fake: Tensor) -> tuple[float, float, Tensor]:
        """G's gradient through `ahead` steps of D, of which D takes the first."""
        kept = [entry.clone() for entry in self._buffers]
        slopes: Slopes = Autograd(self.discriminator, lambda made: self._losses(z, real, made), fake)
        if self._shallow is not None:
            slopes = self._shallow.on(real, fake)
        elif self._stacked is not None:
            slopes = self._stacked.on(real, fake)
        found = look_ahead(slopes, self.discriminator.state, self.rules.ahead, self.discriminator.ask)
        for entry, before in zip(self._buffers, kept, strict=True):
            entry.copy_(before)
        self.discriminator.show(found.first)
        return found.loss_d, found.loss_g, found.by_fake

    def _as_stack(self) -> Stacked | None:
        rules = self.rules
        if rules.remedy.penalty is not None or rules.remedy.reward is not None:
            return None
        stack = stack_of(self.discriminator.net, rules.data.output, rules.batch, rules.loss)
        return None if stack is None else Stacked(self.discriminator, stack, rules.loss)

    def _step_discriminator(self, gradients: tuple[Tensor | None, ...]) -> None:
        self.discriminator.step(self.discriminator.flat(gradients))

    def _losses(self, z: Tensor, real: Tensor, fake: Tensor, both: bool = True) -> tuple[Tensor, Tensor]:
        rules, remedy = self.rules, self.rules.remedy
        logits = self._judge(real, fake)
        loss_d = rules.loss.discriminator(*logits)
        loss_g = rules.loss.generator(*logits) if both else loss_d
        if remedy.penalty is None and remedy.reward is None:
            return loss_d, loss_g
        turn = Turn(z, real, fake, self.discriminator.net, lambda *shape: torch.rand(*shape, generator=self.rng))
        if remedy.penalty is not None:
            loss_d = loss_d + remedy.penalty(turn)
        return loss_d, loss_g + remedy.reward(turn) if remedy.reward is not None and both else loss_g

    def _judge(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """D's logits: in one pass where D judges each sample by itself, else minibatch by minibatch."""
        net, size = self.discriminator.net, len(real)
        if not self._rowwise:
            return net(real), net(fake)
        return net(torch.cat([real, fake])).split(size)  # type: ignore[no-any-return]


Networks = Callable[[int], tuple[nn.Module, nn.Module]]  # samples that D judges together -> fresh G and D


def make_game(recipe: Recipe, data: Dataset, remedy: Remedy, *, seed: int, ahead: int, z_scale: float = 1.0, networks: Networks | None = None,
              latent: Latent | None = None) -> Game:  # fmt: skip
    """A game at its start. Networks, data and latents have a generator each: the same seed gives the same of each under every remedy.

    `networks` and `latent` in place of the recipe's.
    """
    weights, dressing, rng = (torch.Generator().manual_seed(3 * seed + part) for part in range(3))
    with torch.random.fork_rng(devices=[]):  # modules fill themselves from the global state before they are initialised
        torch.random.manual_seed(seed)
        generator, discriminator = networks(remedy.pack) if networks else _networks(recipe, data, remedy, weights)
        if remedy.pack > 1:
            discriminator = nn.Sequential(Pack(remedy.pack), *(discriminator if isinstance(discriminator, nn.Sequential) else [discriminator]))
        if remedy.dress is not None:
            discriminator = remedy.dress(discriminator, dressing)
            with torch.no_grad():
                discriminator(data.draw(recipe.batch, dressing))  # layers that start from the first minibatch of real samples
    shape = latent or Latent(recipe.latent, recipe.prior)  # type: ignore[arg-type]
    rules = Rules(data, remedy.loss or LOSSES[recipe.loss], remedy, recipe.batch, shape, z_scale, ahead)
    return Game(rules, Player(generator, recipe.adam_generator), Player(discriminator, recipe.adam_discriminator), rng)


def _networks(recipe: Recipe, data: Dataset, remedy: Remedy, weights: torch.Generator) -> tuple[nn.Module, nn.Module]:
    generator = make_generator(recipe.generator, recipe.latent, data.output, weights)
    return generator, make_discriminator(recipe.discriminator, data.output, remedy.pack, weights)
