"""The sampler: samples independent of the batch size, output checks, and an unchanged network."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gandiag.errors import ConfigError, OutputError
from gandiag.interfaces import Batch, LatentSpec, OutputSpec, SampleSource
from gandiag.sampling.device import default_batch_size, is_out_of_memory, select_device
from gandiag.sampling.latents import sample_latents
from gandiag.sampling.module_state import hash_module_state, isolated_rng
from gandiag.sampling.output_checks import OutputCheck, output_measurements
from gandiag.sampling.sampler import Sampler, to_device
from gandiag.sampling.sources import generate_batches


class DCGAN(nn.Module):
    """A small DCGAN whose stored BatchNorm statistics differ from those of its batches."""

    def __init__(self, z: int = 8, classes: int = 0) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, z) if classes else None
        self.net = nn.Sequential(
            nn.ConvTranspose2d(z, 16, 4),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 4, 2, 1),
            nn.BatchNorm2d(3),
            nn.Tanh(),
        )
        for norm in (self.net[1], self.net[4]):
            norm.running_mean.fill_(0.01)
            norm.running_var.fill_(0.05)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = z + self.embed(labels)[:, :, None, None]
        return self.net(z)


@dataclass
class FakeNetwork:
    module: nn.Module
    latent: LatentSpec = field(default_factory=lambda: LatentSpec(8, shape=(8, 1, 1)))
    output: OutputSpec = field(default_factory=lambda: OutputSpec("image", (3, 8, 8), (-1.0, 1.0)))
    classes: int | None = None
    condition: Any = None
    subject: dict[str, Any] = field(default_factory=dict)
    assumptions: tuple[Any, ...] = ()
    notes: tuple[Any, ...] = ()

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.module(z) if self.classes is None else self.module(z, labels)


def dcgan(classes: int | None = None) -> FakeNetwork:
    with isolated_rng(0):
        return FakeNetwork(DCGAN(classes=classes or 0), classes=classes)


def sampler(network: Any = None, **options: Any) -> Sampler:
    return Sampler(network or dcgan(), device="cpu", **options)


@pytest.mark.parametrize("bn", ["eval", "standing"])
def test_batch_size_and_order_do_not_change_samples(bn):
    indices = torch.arange(50)
    whole = sampler(batch_size=50).sample_indices(indices, seed=1, bn=bn)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    for size in (1, 7, 64):
        torch.testing.assert_close(
            sampler(batch_size=size).sample_indices(order, seed=1, bn=bn), whole[order], atol=1e-5, rtol=0
        )


class Dropping(nn.Module):
    """Vectors with the network's own noise."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 33), nn.ReLU(), nn.Linear(33, 4))

    def forward(self, z):
        return self.layers(z) + torch.randn(len(z), 4)


@pytest.mark.parametrize("bn", ["eval", "batch", "standing"])
def test_the_batch_size_changes_no_bit_of_a_stream(bn):
    for network in (dcgan(), *([vectors(Dropping())] if bn == "eval" else [])):
        streams = []
        for size in (64, 1, 7, 200):
            one = sampler(network, batch_size=size)
            batches = generate_batches(one, SampleSource("fake", bn=bn), 150, one.batch_size, seed=1)
            streams.append(torch.cat([batch.samples for batch in batches]))
        assert all(torch.equal(stream, streams[0]) for stream in streams[1:])
        assert len(streams[0].flatten(1).unique(dim=0)) == 150


def test_the_samples_are_the_module_on_the_latents():
    network = dcgan()
    with torch.no_grad():
        expected = copy.deepcopy(network.module).eval()(
            sample_latents(network.latent, torch.arange(20), seed=4, scale=0.5)
        )
    assert float(expected.std(0).mean()) > 0.01  # a constant network would pass every test below
    torch.testing.assert_close(sampler(network).sample(20, seed=4, scale=0.5), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bn", ["eval", "batch", "standing"])
@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(bn, training):
    network = dcgan().module.train(training)
    network.net[0].eval()  # a mixture of flags must survive too
    network.net[0].weight.requires_grad_(False)
    before = hash_module_state(network)
    python, legacy, torch_state = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    made = sampler(FakeNetwork(network)).sample_indices(torch.arange(70), seed=0, bn=bn)
    assert made.shape == (70, 3, 8, 8) and not made.requires_grad
    assert hash_module_state(network) == before
    assert (
        random.getstate() == python
        and np.array_equal(np.random.get_state()[1], legacy)
        and torch.equal(torch.get_rng_state(), torch_state)
    )


def test_state_hash_sees_every_change():
    module = DCGAN()
    changes = [
        lambda m: m.net[0].bias.data.add_(1e-6),
        lambda m: m.net[1].running_mean.add_(1e-6),
        lambda m: m.net[2].eval(),
        lambda m: m.net[0].weight.requires_grad_(False),
        lambda m: setattr(m.net[1], "momentum", 0.2),
        lambda m: m.double(),
    ]
    hashes = [hash_module_state(module)]
    for change in changes:
        other = copy.deepcopy(module)
        change(other)
        hashes.append(hash_module_state(other))
    assert len(set(hashes)) == len(hashes) and hash_module_state(module) == hashes[0]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, ZeroDivisionError])
def test_the_network_is_left_as_it_was_when_interrupted(interrupt):
    class Stops(DCGAN):
        calls = 0

        def forward(self, z, labels=None):
            made = super().forward(z)
            Stops.calls += 1
            if Stops.calls == 3:
                raise interrupt
            return made

    module = Stops().train()
    before, torch_state = hash_module_state(module), torch.get_rng_state()
    with pytest.raises((KeyboardInterrupt, OutputError)):
        sampler(FakeNetwork(module), batch_size=4).sample_indices(torch.arange(40), seed=0, bn="standing")
    assert hash_module_state(module) == before and torch.equal(torch.get_rng_state(), torch_state)


def test_batch_statistics_normalise_each_group():
    """With batch statistics the input of the last tanh has mean 0 and variance 1 per channel; with stored ones not."""
    made = sampler(batch_size=5).sample_indices(torch.arange(64), seed=0, bn="batch").atanh()
    torch.testing.assert_close(made.mean((0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(made.var((0, 2, 3)), torch.ones(3), atol=2e-2, rtol=0)


def test_standing_statistics_are_those_of_its_own_samples():
    """Re-estimated over 1,024 latents, the last BatchNorm output has variance 1 to 10 % (64 positions per sample)."""
    one = sampler()
    made = one.sample_indices(torch.arange(2000), seed=0, bn="standing").clamp(-0.99999, 0.99999).atanh()
    torch.testing.assert_close(made.var((0, 2, 3)), torch.ones(3), atol=0.1, rtol=0)
    assert torch.equal(
        one.sample_indices(torch.arange(9), seed=0, bn="standing"),
        sampler().sample_indices(torch.arange(9), seed=0, bn="standing"),
    )
    assert not torch.equal(
        one.sample_indices(torch.arange(9), seed=0, bn="standing"), one.sample_indices(torch.arange(9), seed=0)
    )


def test_labels_reach_the_network_and_are_checked():
    network = dcgan(classes=5)
    one = sampler(network)
    made = one.sample(20, seed=0)
    torch.testing.assert_close(
        made[5:10], one.sample_indices(torch.arange(5, 10), seed=0, labels=torch.arange(5)), atol=1e-5, rtol=0
    )
    assert not torch.allclose(one.sample(5, labels=3)[0], made[0])
    for labels in (torch.arange(3), torch.full((5,), 5), torch.full((5,), -1)):
        with pytest.raises(ConfigError):
            one.sample(5, labels=labels)
    with pytest.raises(ConfigError, match="no classes"):
        sampler().sample(5, labels=0)


class PartlyNaN(nn.Module):
    """Identity on vectors, NaN where the latent's first coordinate is above 1."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.where(z[:, :1] > 1, torch.nan, z)


def vectors(module: nn.Module, dim: int = 4) -> FakeNetwork:
    return FakeNetwork(module, LatentSpec(dim), OutputSpec("vector", (dim,)))


def test_nan_is_counted_and_named():
    bad = int((sample_latents(LatentSpec(4), torch.arange(256), seed=0)[:, 0] > 1).sum())
    with pytest.raises(OutputError, match=f"{bad} of 256 samples contain NaN"):
        sampler(vectors(PartlyNaN()), batch_size=10).sample(256)


def test_huge_finite_values_are_no_nan():
    class Huge(nn.Module):
        def forward(self, z):
            return torch.full_like(z, 3e38)

    assert sampler(vectors(Huge())).sample(8).max() > 1e38


def test_another_shape_and_a_failing_network_are_output_errors():
    with pytest.raises(OutputError, match=r"\(6, 4\), expected \(6, 5\)"):
        sampler(FakeNetwork(nn.Identity(), LatentSpec(4), OutputSpec("vector", (5,)))).sample(6)
    with pytest.raises(OutputError, match="failed on latents"):
        sampler(FakeNetwork(nn.Linear(3, 4), LatentSpec(4), OutputSpec("vector", (4,)))).sample(6)


class Hungry(nn.Module):
    """Runs out of memory, in one of the ways torch does, on more than 3 samples."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.limit = error, 3

    def forward(self, z: Tensor) -> Tensor:
        if len(z) > self.limit:
            raise self.error
        return 2 * z


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 9 bytes."
        ),
        MemoryError(),
    ],
)
def test_the_batch_is_halved_when_memory_runs_out(error):
    one = sampler(vectors(Hungry(error)), batch_size=32)
    torch.testing.assert_close(one.sample(41, seed=2), 2 * sample_latents(LatentSpec(4), torch.arange(41), seed=2))
    assert one.batch_size == 2
    hungrier = Hungry(error)
    hungrier.limit = 0
    with pytest.raises(OutputError, match="memory ran out"):
        sampler(vectors(hungrier), batch_size=32).sample(4)


def test_a_real_allocation_failure_is_told_apart_from_other_errors():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value) and not is_out_of_memory(RuntimeError("shape '[3]' is invalid"))


def test_noise_of_the_network_itself_follows_the_seed():
    class Noisy(nn.Module):
        def forward(self, z):
            return z + torch.randn_like(z)

    one = sampler(vectors(Noisy()))
    assert torch.equal(one.sample(10, seed=1), one.sample(10, seed=1)) and not torch.equal(
        one.sample(10, seed=1), one.sample(10, seed=2)
    )


def test_weights_that_are_recomputed_on_every_call():
    """Old-style weight norm keeps a computed tensor on the module, which cannot be copied; it must run in place."""
    with pytest.warns(FutureWarning):
        module = nn.utils.weight_norm(nn.Linear(4, 4))
    before = hash_module_state(module)
    assert sampler(vectors(module)).sample(3).shape == (3, 4) and hash_module_state(module) == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_runs_and_its_batch_norm_is_not_pretended_to_switch():
    plain = dcgan().module.net.eval()
    for module in (
        torch.jit.script(plain),
        torch.jit.trace(plain, torch.zeros(2, 8, 1, 1)),
        torch.jit.freeze(torch.jit.script(plain)),
    ):
        before = hash_module_state(module)
        one = sampler(FakeNetwork(module))
        torch.testing.assert_close(one.sample(5), sampler(FakeNetwork(plain)).sample(5), atol=1e-5, rtol=0)
        assert hash_module_state(module) == before
    with pytest.raises(ConfigError, match="2 BatchNorm layers"):
        sampler(FakeNetwork(torch.jit.script(plain))).sample_indices(torch.arange(5), seed=0, bn="batch")


def test_run_gives_gradients_to_latents_only_when_asked():
    network = dcgan()
    one = sampler(network)
    z = sample_latents(network.latent, torch.arange(4), seed=0).requires_grad_()
    one.generate(z, keep_graph=True).square().sum().backward()
    assert z.grad is not None and float(z.grad.abs().sum()) > 0
    assert not one.generate(z).requires_grad
    torch.testing.assert_close(one.generate(z).cpu(), one.sample(4), atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="standing"):
        one.generate(z, bn="standing")


def test_output_facts_merge_and_match_their_definition():
    samples = torch.rand(60, 3, 5, 5) * 2 - 1
    samples[:, 1] = 0.25
    samples[0, 0, 0, :2] = torch.tensor([1.5, -1.0])
    spec = OutputCheck((-1.0, 1.0))
    whole, left, right = spec.start(), spec.start(), spec.start()
    whole.update(Batch(samples, torch.arange(60)))
    for start in range(0, 60, 7):
        (left if start % 2 else right).update(
            Batch(samples[start : start + 7], torch.arange(start, min(start + 7, 60)))
        )
    left.merge(right)
    left.merge(spec.start())
    facts = whole.result()
    assert left.result() == facts and facts.constant_channels == (1,) and facts.n_channels == 3
    assert (facts.minimum, facts.maximum) == (-1.0, 1.5) and facts.out_of_range_fraction == pytest.approx(
        1 / samples.numel()
    )
    assert facts.saturated_fraction == pytest.approx(float((samples.abs() >= 1 - 2 / 510).double().mean()))
    found = output_measurements(facts)
    assert found["output_max"].value == 1.5 and found["constant_channels"].value == 1
    assert all(entry.status == "not_measured" for entry in output_measurements(spec.start().result()).values())


def test_fake_batches_hold_indices_and_labels():
    one = sampler(dcgan(classes=5))
    batches = list(generate_batches(one, SampleSource("fake", 0.5), 23, 10, seed=3))
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(23))
    joined = torch.cat([batch.samples for batch in batches])
    torch.testing.assert_close(joined, one.sample(23, seed=3, scale=0.5), atol=1e-5, rtol=0)
    assert torch.cat([batch.labels for batch in batches]).tolist() == [i % 5 for i in range(23)]
    assert {
        int(x) for batch in generate_batches(one, SampleSource("fake"), 9, 4, only_class=2) for x in batch.labels
    } == {2}


def test_batch_statistics_do_not_depend_on_the_stream_batch():
    one = sampler()
    made = [
        torch.cat([batch.samples for batch in generate_batches(one, SampleSource("fake", bn="batch"), 150, size)])
        for size in (10, 64, 100)
    ]
    torch.testing.assert_close(made[0], made[1])
    assert not torch.equal(made[0][:64], made[2][:64]) or torch.allclose(made[0][:128], made[2][:128])


def test_devices_and_automatic_batches():
    assert select_device("cpu").type == "cpu" and select_device("auto").type in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no cuda"):
            select_device("cuda")
    cpu = torch.device("cpu")
    assert (
        default_batch_size(OutputSpec("image", (3, 64, 64)), cpu) == 128
        and default_batch_size(OutputSpec("vector", (2,)), cpu) == 4096
    )
    assert default_batch_size(OutputSpec("image", (3, 2048, 2048)), cpu) == 1
    with pytest.raises(ConfigError, match="'evil'"):
        sampler().sample_indices(torch.arange(2), seed=0, bn="evil")


def test_another_device_gets_a_copy_and_the_original_stays():
    network = dcgan()
    before, meta = hash_module_state(network.module), torch.device("meta")
    copied, device = to_device(network, meta)
    assert (
        device == meta
        and next(copied.module.parameters()).device == meta
        and hash_module_state(network.module) == before
    )
    assert to_device(network, torch.device("cpu"))[0] is network


def test_what_cannot_be_copied_runs_where_it_is():
    with pytest.warns(FutureWarning):
        module = nn.utils.weight_norm(nn.Linear(4, 4))
    module(torch.zeros(1, 4))  # leaves a computed tensor behind, which deepcopy refuses
    network = vectors(module)
    assert to_device(network, torch.device("meta")) == (network, torch.device("cpu"))


def test_repr():
    assert repr(sampler(dcgan(3))) == "Generator(z (8, 1, 1) normal -> image (3, 8, 8), 3 classes, on cpu)"
    assert sampler().n_batchnorm_layers == 2
