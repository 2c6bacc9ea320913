"""Workers whose data carries its own invariant: a counter, so that lost, repeated and reordered data show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from mbrl_async.runtime.channels import Latest, Stream
from mbrl_async.runtime.recovery import Entry, Past, Snapshot
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL, collector_names
from mbrl_async.runtime.trace import Counters, StepRecord
from mbrl_async.runtime.worker import WorkerMaker
from mbrl_async.types import INPUTS, Clock, Metrics, Parameters, State, StepReport

STEPS = 4  # control steps of a fake trajectory
PERIOD = 0.25  # seconds of a fake control step: exact in binary, so that virtual times are, too


@dataclass
class Wires:
    """The three channels, everything that came out of the stream, and who was closed: also of workers elsewhere."""

    trajectories: Stream[int] = field(default_factory=Stream)
    models: Latest = field(default_factory=Latest)
    policies: Latest = field(default_factory=Latest)
    received: Stream[int] = field(default_factory=Stream)
    closed: Stream[str] = field(default_factory=Stream)


class FakeCollector:
    """Trajectory n is the number n, counted from `before`, so that it says whose it is."""

    publishes = "trajectories"

    def __init__(self, wires: Wires, clock: Clock, period: float, name: str = COLLECT, before: int = 0) -> None:
        self.wires, self.clock, self.period, self.name = wires, clock, period, name
        self.version = 0
        self.count = before

    @property
    def pulled(self) -> Mapping[str, int]:
        return {"policy": self.version}

    def pull(self) -> bool:
        newest = self.wires.policies.get()
        self.version = 0 if newest is None else newest.version
        return True

    def step(self) -> StepReport:
        for _ in range(STEPS):
            self.clock.sleep_until(self.clock.now() + self.period)
        self.count += 1
        return StepReport(
            {"return": float(self.count)}, trajectories=1, env_steps=STEPS, collection_seconds=STEPS * self.period
        )

    def result(self) -> Parameters:
        return {"count": torch.tensor(self.count)}

    def push(self) -> None:
        self.wires.trajectories.put(self.count)

    def state_dict(self) -> State:
        return {"count": self.count, INPUTS: self.version}

    def load_state_dict(self, state: State) -> None:
        self.count, self.version = state["count"], state.get(INPUTS, 0)

    def close(self) -> None:
        self.wires.closed.put(self.name)


class FakeModelLearner:
    """The model is the sum of all trajectories; learns at most `epochs` times after each arrival."""

    publishes = "model"

    def __init__(self, wires: Wires, clock: Clock, epochs: int) -> None:
        self.wires, self.clock, self.epochs = wires, clock, epochs
        self.remaining = 0
        self.received: list[int] = []
        self.total = torch.zeros(1)

    @property
    def pulled(self) -> Mapping[str, int]:
        return {"trajectories": len(self.received)}

    def pull(self) -> bool:
        arrived = self.wires.trajectories.drain()
        self._receive(arrived)
        if arrived:
            self.remaining = self.epochs
        return self.remaining > 0

    def step(self) -> StepReport:
        self.clock.check()
        self.remaining -= 1
        self.total += sum(self.received)
        return StepReport({"loss": float(self.total)})

    def result(self) -> Parameters:
        return {"total": self.total}

    def push(self) -> None:
        self.wires.models.put(self.result())

    def state_dict(self) -> State:
        return {"received": list(self.received), "remaining": self.remaining, "total": self.total.clone()}

    def load_state_dict(self, state: State) -> None:
        self.received = []
        self._receive(state["received"])
        self.remaining = state["remaining"]
        self.total.copy_(state["total"])

    def close(self) -> None:
        self.wires.closed.put(LEARN_MODEL)

    def _receive(self, arrived: list[int]) -> None:
        self.received += arrived
        for each in arrived:
            self.wires.received.put(each)


class FakePolicyLearner:
    """The policy mixes the model's number with its own history, so that any other order gives another result."""

    publishes = "policy"

    def __init__(self, wires: Wires, clock: Clock) -> None:
        self.wires, self.clock = wires, clock
        self.version = 0
        self.model = torch.zeros(1)
        self.value = torch.ones(1)

    @property
    def pulled(self) -> Mapping[str, int]:
        return {"model": self.version}

    def pull(self) -> bool:
        newest = self.wires.models.get()
        if newest is None:
            return False
        self.version, self.model = newest.version, newest.parameters["total"]
        return True

    def step(self) -> StepReport:
        self.clock.check()
        self.value.copy_((1.5 * self.value + self.model).sin())
        return StepReport({"value": float(self.value)})

    def result(self) -> Parameters:
        return {"value": self.value}

    def push(self) -> None:
        self.wires.policies.put(self.result())

    def state_dict(self) -> State:
        return {"value": self.value.clone(), INPUTS: {"version": self.version, "model": self.model}}

    def load_state_dict(self, state: State) -> None:
        inputs = state.get(INPUTS, {"version": 0, "model": torch.zeros(1)})
        self.value.copy_(state["value"])
        self.version, self.model = inputs["version"], inputs["model"]

    def close(self) -> None:
        self.wires.closed.put(IMPROVE_POLICY)


class BrokenPolicyLearner(FakePolicyLearner):
    """Raises when it is made, or in one of its methods."""

    def __init__(self, wires: Wires, clock: Clock, phase: str) -> None:
        super().__init__(wires, clock)
        if phase == "make":
            self._break("make")
        setattr(self, phase, lambda: self._break(phase))

    def _break(self, phase: str) -> None:
        raise ArithmeticError(f"broken in {phase}")


@dataclass(frozen=True)
class Making:
    """Makes a fake, in whatever process."""

    fake: Callable[..., Any]
    wires: Wires
    arguments: tuple[Any, ...] = ()

    def __call__(self, clock: Clock) -> Any:
        return self.fake(self.wires, clock, *self.arguments)


OF_EACH = 1000
"""Collector i counts its trajectories from so many times i."""


def fake_makers(
    wires: Wires, *, period: float = PERIOD, epochs: int = 3, collectors: int = 1
) -> dict[str, WorkerMaker]:
    names = collector_names(collectors)
    return {
        **{name: Making(FakeCollector, wires, (period, name, OF_EACH * i)) for i, name in enumerate(names)},
        LEARN_MODEL: Making(FakeModelLearner, wires, (epochs,)),
        IMPROVE_POLICY: Making(FakePolicyLearner, wires),
    }


class Recorder:
    """An observer that keeps everything."""

    def __init__(self, then: Callable[[StepRecord], None] = lambda record: None) -> None:
        self.steps: list[tuple[StepRecord, Metrics, Counters]] = []
        self._then = then

    def on_step(self, record: StepRecord, metrics: Metrics, counters: Counters) -> None:
        self.steps.append((record, metrics, counters))
        self._then(record)


class MemoryKeeper:
    """Keeps everything, and makes of it the past of a run that was cut off anywhere."""

    def __init__(self, wires: Wires, past: Past | None = None, every: int = 2) -> None:
        """`every`: trajectories between two snapshots."""
        self.past = past or Past()
        self.entries = list(self.past.entries)
        self.snapshots: list[tuple[Snapshot, State]] = []
        self._wires, self._every, self._snapshot_due = wires, every, every

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)

    def should_snapshot(self, counters: Counters) -> bool:
        due = counters.trajectories >= self._snapshot_due
        if due:
            self._snapshot_due += self._every
        return due

    def save(self, snapshot: Snapshot) -> None:
        channels = {name: getattr(self._wires, name).state_dict() for name in ("trajectories", "models", "policies")}
        self.snapshots.append((snapshot, channels))

    def resumed(self, length: int, wires: Wires) -> MemoryKeeper:
        """A keeper for new wires, with all that was kept when the journal had so many entries."""
        entries = self.entries[:length]
        usable = [each for each in self.snapshots if each[0].position <= length]
        if not usable:
            return MemoryKeeper(wires, Past(entries))
        snapshot, channels = usable[-1]
        for name, state in channels.items():
            getattr(wires, name).load_state_dict(state)
        return MemoryKeeper(wires, Past(entries, snapshot))
