"""Manager, journal and ledger against a model: any order of launches, ends, stops, crashes, and time going by."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gpu.resources.fleets import Crash, Fleet, Steps
from textnlp_fast.errors import BudgetExceededError, CapacityError, ConflictError
from textnlp_fast.gpu import GPUType, Market
from textnlp_fast.gpu.resources import AcquireRequest, Budget
from textnlp_fast.gpu.resources.acquiring import acquisition_of
from textnlp_fast.gpu.resources.ledger import usd_per_hour_now
from textnlp_fast.gpu.resources.requests import MARKETS

_PRICES = {
    ("t4.1", Market.ON_DEMAND): Fraction(1),
    ("t4.4", Market.ON_DEMAND): Fraction(4),
    ("t4.1", Market.SPOT): Fraction(1, 5),
    ("t4.4", Market.SPOT): Fraction(4, 5),
}
_HOURLY_BUDGET = 7


@dataclass
class _Machine:
    """What the model knows: its price, and the time it has run, in whole seconds."""

    usd_per_hour: Fraction
    list_price: Fraction
    running: bool = True
    ended: bool = False
    seconds: int = 0


@dataclass
class _Model:
    machines: dict[str, _Machine] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def rate(self) -> Fraction:
        return sum((one.usd_per_hour for one in self.machines.values() if one.running), Fraction(0))


class FleetMachine(RuleBasedStateMachine):
    """Rules do to the fleet what they do to the model; invariants compare them."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.model = _Model()

    def _manager(self, **options: object) -> object:
        return self.fleet.manager(budget=Budget(usd_per_hour=_HOURLY_BUDGET), **options)

    def _add(self, instance_id: str) -> None:
        one = self.fleet.cloud.instances[instance_id]
        kind = one.instance_type
        self.model.machines[instance_id] = _Machine(
            _PRICES[kind, one.market], _PRICES[kind, Market.ON_DEMAND]
        )

    @rule(
        gpus=st.sampled_from([1, 2]),
        market=st.sampled_from(["on-demand", "spot", "spot-first"]),
        key=st.sampled_from([None, "a", "b"]),
    )
    def launch(self, gpus: int, market: str, key: str | None) -> None:
        name = None if key is None else f"{key}-{gpus}"
        before = self.model.keys.get(name or "")
        request = AcquireRequest(
            gpu_types=[GPUType.NVIDIA_T4],
            gpu_count=gpus,
            market=market,  # type: ignore[arg-type]
            key=name,
        )
        held = before is not None and not self.model.machines[before].ended
        try:
            (found,) = self._manager().acquire(request)  # type: ignore[attr-defined]
        except BudgetExceededError:
            assert not held
            cheapest = min(
                _PRICES[kind, where]
                for kind in (("t4.1", "t4.4") if gpus == 1 else ("t4.4",))
                for where in (
                    (Market.ON_DEMAND,) if market == "on-demand" else (Market.SPOT, Market.ON_DEMAND)
                )
            )
            assert (
                self.model.rate + self._under_way() + cheapest > _HOURLY_BUDGET or self.fleet.cloud.capacity
            )
            return
        except CapacityError:
            assert not held
            assert self.fleet.cloud.capacity
            return
        except ConflictError:
            # What the key holds, or has asked for, is of a market that this request does not want.
            assert name is not None
            records = self.fleet.journal().records(acquisition_of("fleet-a", name))
            assert any(one.market not in MARKETS[request.market] for one in records)
            assert before is None or not held or not self._fits(before, request)
            return
        if held:
            assert self._fits(before or "", request)
            assert found.instance_id == before
            return
        assert found.instance_id not in self.model.machines
        self._add(found.instance_id)
        assert self.model.rate <= _HOURLY_BUDGET
        if name is not None:
            self.model.keys[name] = found.instance_id

    def _fits(self, instance_id: str, request: AcquireRequest) -> bool:
        return self.fleet.cloud.instances[instance_id].market in MARKETS[request.market]

    def _under_way(self) -> Fraction:
        """What launches may cost whose process died, and of which nothing shows yet."""
        records = self.fleet.journal().records()
        return sum((Fraction(usd_per_hour_now(r)) for r in records if r.phase == "intended"), Fraction(0))

    @rule(step=st.integers(0, 40), key=st.sampled_from([None, "crash"]))
    def die_while_launching(self, step: int, key: str | None) -> None:
        """Whatever came of it, the next settling knows."""
        request = AcquireRequest(gpu_types=[GPUType.NVIDIA_T4], key=key)
        with suppress(Crash, BudgetExceededError, CapacityError):
            self._manager(steps=Steps(step)).acquire(request)  # type: ignore[attr-defined]
        self._manager().settle()  # type: ignore[attr-defined]
        for one in self.fleet.cloud.alive():
            if one not in self.model.machines:
                self._add(one)

    @rule(data=st.data(), verb=st.sampled_from(["release", "stop", "start"]))
    @precondition(lambda self: self.model.machines)
    def change(self, data: st.DataObject, verb: str) -> None:
        one = data.draw(st.sampled_from(sorted(self.model.machines)))
        machine = self.model.machines[one]
        changed = getattr(self._manager(), verb)([one])
        wished = {
            "release": not machine.ended,
            "stop": not machine.ended and machine.running,
            "start": not machine.ended and not machine.running,
        }
        assert list(changed) == ([one] if wished[verb] else [])
        if not machine.ended:
            machine.running = verb == "start"
            machine.ended = verb == "release"

    @rule(data=st.data())
    @precondition(lambda self: any(one.running for one in self.model.machines.values()))
    def take_away(self, data: st.DataObject) -> None:
        """Spot's end, seen at once."""
        running = sorted(name for name, one in self.model.machines.items() if one.running)
        one = data.draw(st.sampled_from(running))
        manager = self._manager()
        manager._provider_at("memory", "here").terminate([one])  # type: ignore[attr-defined]
        manager.settle()  # type: ignore[attr-defined]
        self.model.machines[one].running = False
        self.model.machines[one].ended = True

    @rule(seconds=st.integers(1, 200_000))
    def wait(self, seconds: int) -> None:
        self.fleet.clock.forward(seconds=seconds)
        for machine in self.model.machines.values():
            machine.seconds += seconds * machine.running

    @rule(empty=st.booleans(), zone=st.sampled_from(["za", "zb"]), market=st.sampled_from(list(Market)))
    def lose_capacity(self, empty: bool, zone: str, market: Market) -> None:
        if empty:
            self.fleet.cloud.capacity[zone, market] = 0
        else:
            self.fleet.cloud.capacity.clear()

    @invariant()
    def journal_and_cloud_agree(self) -> None:
        alive = {name for name, one in self.model.machines.items() if not one.ended}
        assert set(self.fleet.cloud.alive()) == alive == self.fleet.recorded()

    @invariant()
    def the_ledger_is_exact(self) -> None:
        total = self._manager().costs().total  # type: ignore[attr-defined]
        machines = self.model.machines.values()
        spent = sum((one.usd_per_hour * one.seconds / 3600 for one in machines), Fraction(0))
        saved = sum(
            ((one.list_price - one.usd_per_hour) * one.seconds / 3600 for one in machines), Fraction(0)
        )
        assert abs(Fraction(total.spent_usd) - spent) < Fraction(1, 10**12)
        assert abs(Fraction(total.saved_usd) - saved) < Fraction(1, 10**12)
        assert Fraction(total.usd_per_hour) == self.model.rate
        assert total.running == sum(one.running for one in machines)


TestFleet = FleetMachine.TestCase
TestFleet.settings = settings(
    max_examples=40, stateful_step_count=25, suppress_health_check=list(HealthCheck), deadline=None
)
