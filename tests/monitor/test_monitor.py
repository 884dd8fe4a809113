"""The monitor: bit-identical training, the time budget, detection of collapse, and failures that stop nothing."""

from __future__ import annotations

import copy
import io
import multiprocessing
import os
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gandiag
from gandiag.errors import ConfigError, LoadError
from gandiag.monitor.real_statistics import QuickCheck
from gandiag.monitor.snapshot_sampler import unwrap_training_module
from gandiag.monitor.status import Evaluation
from gandiag.monitor.time_budget import TimeBudget
from gandiag.testing.toy_mixtures import make_mixture

MIXTURE = make_mixture(dim=2, n_modes=8)
REAL = MIXTURE.sample(1_200, seed=1)


class Ring(nn.Module):
    """A generator whose modes can be switched off: z (B, 4) -> z[0] selects the mode, z[1:3] the point inside it."""

    latent_dim = 4

    def __init__(self, modes: int = 8) -> None:
        super().__init__()
        self.modes = modes
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, z: Tensor) -> Tensor:
        share = 0.5 * (1 + torch.erf(z[:, 0] / 2**0.5))
        mode = (share * self.modes).long().clamp(max=self.modes - 1)
        return MIXTURE.centers[mode] + MIXTURE.std * z[:, 1:3] + self.shift


class Noisy(nn.Module):
    """Everything that an evaluation could disturb: BatchNorm, dropout, random noise, spectral norm, frozen weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 16))
        self.norm, self.drop, self.last = nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 2)
        self.last.bias.requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.drop(torch.relu(self.norm(self.first(z))))
        return self.last(hidden + 0.1 * torch.randn_like(hidden))


def monitor(**settings: Any) -> gandiag.Monitor:
    return gandiag.Monitor(**{"real": REAL, "every": 1, "budget": None, "n": 256, "status": False, **settings})


def train_network(
    watch: Callable[[int, nn.Module], Any] | None,
    wrap: Callable[[nn.Module], nn.Module] = lambda net: net,
    steps: int = 6,
) -> dict[str, Any]:
    """The full state after training: weights, buffers, gradients, flags and every random state."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    bare = Noisy()
    net = wrap(bare)
    optimizer = torch.optim.Adam([entry for entry in net.parameters() if entry.requires_grad], 1e-2)
    for step in range(1, steps):
        net.train(step % 2 == 1)
        bare.drop.eval()
        loss = net(torch.randn(32, 4)).square().mean() + float(np.random.rand()) + random.random()
        optimizer.zero_grad()
        loss.backward()
        if watch is not None:
            watch(step, net)
        optimizer.step()
    return {
        "state": copy.deepcopy(bare.state_dict()),
        "grads": [None if entry.grad is None else entry.grad.clone() for entry in bare.parameters()],
        "flags": [part.training for part in bare.modules()],
        "random": (torch.get_rng_state(), np.random.get_state()[1], random.getstate()),
        "device": [entry.device for entry in bare.parameters()],
        "grad": [entry.requires_grad for entry in bare.parameters()],
    }


def is_equal(first: Any, second: Any) -> bool:
    if isinstance(first, (Tensor, np.ndarray)):
        return bool((first == second).all())
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(is_equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(is_equal(a, b) for a, b in zip(first, second, strict=True))
    return bool(first == second)


def test_training_is_identical_to_the_bit() -> None:
    watch = monitor()
    monitored = train_network(watch)
    assert len(watch.evaluations) == 5 and watch.evaluations[0].score is not None
    assert is_equal(train_network(None), monitored)


def test_compiled_modules_are_unwrapped() -> None:
    def compiled(net: nn.Module) -> nn.Module:
        return torch.compile(net, backend="eager")  # type: ignore[return-value]

    watch = monitor()
    assert is_equal(train_network(None, compiled), train_network(watch, compiled)) and len(watch.evaluations) == 5
    inner = Noisy()
    assert unwrap_training_module(compiled(inner)) is inner


def test_evaluating_inside_autocast_changes_nothing() -> None:
    watch = monitor()

    def train(monitored: bool) -> Tensor:
        torch.manual_seed(0)
        net = Noisy()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            first = net(torch.randn(16, 4)).float().square().mean()
            if monitored:
                watch(1, net)
            loss = first + net(torch.randn(16, 4)).float().square().mean()
        loss.backward()
        return torch.cat([entry.grad.flatten() for entry in net.parameters() if entry.grad is not None])

    assert torch.equal(train(False), train(True)) and watch.evaluations


def test_states_of_a_ring_that_loses_its_modes() -> None:
    alarms: list[Evaluation] = []
    watch = monitor(on_alarm=alarms.append, stop=True, patience=2)
    net = Ring()
    for step, modes in enumerate((8, 8, 7, 5, 1, 1, 1), 1):
        net.modes = modes  # an attribute, which no state dict holds
        watch(step, net)
        if watch.stopped:
            break
    states = [evaluation.state for evaluation in watch.evaluations]
    assert states[0] in ("fine", "unclear") and states[:2] == [states[0]] * 2
    assert (
        states[2] == "losing" and states[3] == "collapsed" and watch.stopped and step == 5
    )  # 5 of 8, then 1: two collapsed evaluations
    assert [evaluation.state for evaluation in alarms] == ["losing", "collapsed"]
    assert watch.evaluations[2].quick_check == QuickCheck(
        pytest.approx(1 / 8, abs=0.03), pytest.approx(1.0, abs=0.2), 8, 1
    )


def test_evaluations_happen_every_n_steps() -> None:
    watch, net = monitor(every=100), Ring()
    steps = [step for step in (0, 1, 99, 100, 101, 199, 250, 251, 300) if watch(step, net) is not None]
    assert steps == [100, 250, 300]
    watch(120, net)  # resumed from a snapshot
    assert watch(200, net) is not None
    resumed = monitor(every=100)
    buffer = io.BytesIO()
    torch.save(watch.state_dict(), buffer)
    resumed.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert resumed.evaluations == watch.evaluations
    assert resumed(250, net) is None and resumed(300, net) is not None and len(resumed.evaluations) == 5


def test_status_line_and_sink_values(capsys: pytest.CaptureFixture[str]) -> None:
    stream, logged = io.StringIO(), []
    watch = monitor(sink=lambda values, step: logged.append((step, values)), status=stream)
    watch(6, Ring())
    watch(7, Ring(2))
    setup, _, line = stream.getvalue().splitlines()
    assert setup.startswith("gandiag monitor: set-up took ") and "(512 real samples, 8 modes)" in setup
    assert (
        line.startswith("gandiag step 7  COLLAPSED  score 0.7") and "2 of 8 modes" in line and "% of the time" in line
    )
    _, (step, values) = logged
    assert step == 7 and values["gandiag/collapsed"] == 1.0 and values["gandiag/score_low"] > 0.15
    assert all(isinstance(value, float) for value in values.values())
    assert capsys.readouterr().out == ""


def test_failures_warn_once_and_training_continues() -> None:
    def broken(values: Any, step: int) -> None:
        raise OSError("no network")

    watch, net = monitor(sink=broken), Ring()
    with pytest.warns(RuntimeWarning, match="the sink failed, and training continues: OSError: no network"):
        watch(1, net)
    watch(2, net)  # an error where warnings are errors
    net.shift.data.fill_(float("nan"))
    with pytest.warns(RuntimeWarning, match="the evaluation failed"):
        assert watch(3, net) is None
    assert watch(4, net) is None
    net.shift.data.zero_()
    assert watch(5, net) is not None


class _ClosedStream(io.StringIO):
    def write(self, text: str) -> int:
        raise ValueError("I/O operation on closed file")


def test_a_closed_status_stream_warns_once() -> None:
    watch, net = monitor(status=_ClosedStream()), Ring()
    with pytest.warns(RuntimeWarning, match="the status stream failed, and training continues"):
        assert watch(1, net) is not None
    assert watch(2, net) is not None  # an error where warnings are errors


class _Locked(Ring):
    """Cannot be copied; counts its calls, keeps a history, and owns random generators."""

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.calls, self.history = threading.Lock(), 0, [0]
        self.generator, self.python = torch.Generator().manual_seed(1), random.Random(2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, z: Tensor) -> Tensor:
        self.calls += 1
        self.history.append(self.calls)
        self.python.random()
        return super().forward(z) + 0 * torch.rand(2, generator=self.generator) + 0 * self.norm(z[:, :2])


class _OwnCopy(_Locked):
    """Returns itself as its copy."""

    def __deepcopy__(self, memo: Any) -> _OwnCopy:
        return self


@pytest.mark.parametrize("kind", [_Locked, _OwnCopy])
def test_modules_that_cannot_be_copied_are_put_back(kind: type[_Locked]) -> None:
    net = kind()
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    states = net.generator.get_state(), net.python.getstate()
    assert monitor()(1, net) is not None
    assert (net.calls, net.history) == (0, [0]) and all(part.training for part in net.modules())
    assert torch.equal(net.generator.get_state(), states[0]) and net.python.getstate() == states[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_scripted_modules_are_sampled() -> None:
    scripted = torch.jit.trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(2, 4))
    assert monitor(latent_dim=4)(1, scripted) is not None


def test_an_exception_in_on_alarm_ends_training() -> None:
    def stop(evaluation: Evaluation) -> None:
        raise StopIteration(str(evaluation))

    with pytest.raises(StopIteration, match="COLLAPSED"):
        watch = monitor(on_alarm=stop)
        watch(1, Ring())
        watch(2, Ring(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "every is 0"),
        ({"budget": 0}, "budget is 0"),
        ({"budget": float("nan")}, "budget"),
        ({"n": 10}, "n is 10"),
        ({"patience": 1}, "patience is 1"),
        ({"after": -1}, "after is -1"),
        ({"sink": 3}, "sink is a int"),
        ({"latnet_dim": 3}, "latnet_dim"),
        ({"limit": 2.0}, "limit"),
    ],
    ids=str,
)
def test_invalid_settings_raise_in_the_constructor(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        monitor(**settings)


def test_unusable_inputs_raise_at_the_first_call() -> None:
    with pytest.raises(gandiag.GandiagError, match="real samples"):
        monitor(real=REAL[:50], every=1_000)(0, Ring())
    with pytest.raises(LoadError, match="latent size"):
        monitor(every=1_000)(0, nn.ReLU())
    sharded = type("FullyShardedDataParallel", (nn.Module,), {})()
    with pytest.raises(LoadError, match="sharded"):
        monitor()(1, sharded)


def test_the_budget_is_kept_by_fewer_evaluations_and_samples() -> None:
    now = [0.0]
    time_budget = TimeBudget(0.02, 1024, clock=lambda: now[0])
    time_budget.start()
    with time_budget.measure_setup():
        now[0] += 30.0
    assert time_budget.setup_seconds == 30.0 and time_budget.training_seconds == 0.0
    time_budget.learn_cost("quick", 256, 0.02)  # more than it will cost
    time_budget.learn_cost("full", 256, 0.2)
    sizes, scored = [], []
    for _ in range(3_000):
        now[0] += 0.5  # of training
        n = time_budget.allowed_samples("quick", time_budget.max_samples)
        sizes.append(n)
        if n:
            with time_budget.measure():
                m = time_budget.allowed_samples("full", n)
                scored.append(m)
                cost = {"quick": 0.01 * n / 256, "full": 0.2 * (m / 256) ** 2}
                now[0] += sum(cost.values())
            time_budget.record_cost("quick", n, cost["quick"])
            if m:
                time_budget.record_cost("full", m, cost["full"])
        assert time_budget.overhead <= 0.02
    assert time_budget.overhead > 0.01
    # The first evaluation is not free: 0.02 s of quick checks are affordable after 2 s. Then about every second one.
    assert sizes[:4] == [0, 0, 0, 256] and 1_000 < sizes.count(0) < 2_000
    assert 20 < sum(m > 0 for m in scored) < 100


def test_an_evaluation_that_does_not_fit_is_skipped_and_said_once() -> None:
    stream = io.StringIO()
    watch, net = monitor(budget=1e-9, status=stream), Ring()
    assert [watch(step, net) for step in range(1, 5)] == [None] * 4 and not watch.evaluations
    setup, skipped = stream.getvalue().splitlines()
    assert "set-up took" in setup and skipped.startswith("gandiag step 1  skipped") and "1e-07 %" in skipped
    assert watch.overhead < 0.5 and watch.time_budget.setup_seconds > 0


def test_a_generator_that_grows_is_learning_and_one_that_stays_has_collapsed() -> None:
    watch, net = monitor(stop=True), Ring()
    for step, modes in enumerate((1, 2, 4, 8, 8), 1):
        net.modes = modes
        watch(step, net)
    states = [evaluation.state for evaluation in watch.evaluations]
    assert states[:3] == ["learning"] * 3 and not watch.stopped
    assert not {"collapsed", "losing"} & set(states)
    stays = monitor(stop=True)
    for step in range(1, 4):
        assert not stays.stopped
        stays(step, Ring(2))
    assert [evaluation.state for evaluation in stays.evaluations] == ["learning", "collapsed", "collapsed"]
    assert stays.stopped
    late = monitor(stop=True, after=4)
    for step in range(1, 6):
        late(step, Ring(2))
    assert [evaluation.state for evaluation in late.evaluations] == ["learning"] * 3 + ["collapsed"] * 2


class Constant(Ring):
    """A beginner: one output, far from the data."""

    def forward(self, z: Tensor) -> Tensor:
        return 1e-3 * z[:, :2] + self.shift


def test_a_beginner_has_not_collapsed() -> None:
    watch, net = monitor(stop=True), Constant()
    for step in range(1, 5):
        evaluation = watch(step, net)
        assert evaluation is not None and evaluation.judgment is not None
        assert evaluation.state == "learning" and evaluation.judgment.verdict == "collapsed"
        assert not evaluation.judgment.is_realistic
    assert not watch.stopped


def test_modes_that_held_out_data_underrepresent_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seventy rows far away, of which the half that modes are found in has sixty. Rows stay where they are put."""
    monkeypatch.setattr("gandiag.sampling.sources.content_keys", lambda reader, stream: torch.arange(reader.n))
    order = torch.randperm(1_200, generator=torch.Generator().manual_seed(0))
    real = REAL.clone()
    real[torch.cat([order[:120:2], order[1:20:2]])] = 20 + MIXTURE.std * torch.randn(
        70, 2, generator=torch.Generator().manual_seed(2)
    )
    watch = monitor(real=real, n=600)
    evaluation = watch(1, Ring())
    assert evaluation is not None
    assert (evaluation.quick_check.modes, evaluation.quick_check.starved, evaluation.quick_check.lost) == (8, 0, 0.0)


def _rank(rank: int, port: int, queue: Any) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    net = Ring()
    wrapped = nn.parallel.DistributedDataParallel(net)
    watch = monitor(stop=True, every=2)
    steps = 0
    for steps in range(1, 12):
        wrapped(torch.randn(8, 4)).square().mean().backward()
        net.modes = 8 if steps < 6 else 1
        watch(steps, wrapped)
        if watch.stopped:
            break
    queue.put((rank, steps, len(watch.evaluations)))
    torch.distributed.destroy_process_group()


def test_rank_zero_decides_for_both_processes() -> None:
    context = multiprocessing.get_context("spawn")
    queue, port = context.Queue(), 20_000 + os.getpid() % 20_000
    processes = [context.Process(target=_rank, args=(rank, port, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    results = sorted(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    assert results == [(0, 8, 4), (1, 8, 0)]
