"""A fleet's journal and an autoscaler's book, written through the faces that write them in earnest."""

from __future__ import annotations

import datetime
import math
import time
from decimal import Decimal
from pathlib import Path

from textnlp_fast.gpu.providers.contract import InstanceState
from textnlp_fast.gpu.resources.journal import Journal
from textnlp_fast.gpu.resources.records import InstanceRecord, LaunchRecord, Period, Phase
from textnlp_fast.gpu.scaling.autoscaler.book import Book
from textnlp_fast.gpu.scaling.autoscaler.records import State, record_of
from textnlp_fast.gpu.scaling.engine import LLMPolicy
from textnlp_fast.gpu.scaling.observation import Observation
from textnlp_fast.gpu.scaling.policy import ReplicaCapacity, ScalingPolicy
from textnlp_fast.gpu.types import Market
from textnlp_fast.objectstore import open_store

FLEET = "aws-asg-llm"
PERIOD_S = 60.0


def rent(state: Path) -> None:
    """Machines of two clouds: on spot and on demand, one gone again."""
    journal = Journal.open(state)
    now = datetime.datetime.now(datetime.timezone.utc)
    for number, (provider, region, kind, gpu, gpus, market, usd, on_demand, hours) in enumerate(
        (
            ("aws", "us-east-1", "g6.xlarge", "nvidia-l4", 1.0, "spot", "0.3612", "0.8048", 70),
            ("aws", "us-east-1", "g6.12xlarge", "nvidia-l4", 4.0, "on-demand", "4.6016", "4.6016", 30),
            ("gcp", "europe-west4", "a2-highgpu-1g", "nvidia-a100", 1.0, "spot", "1.1523", "3.6730", 9),
            ("aws", "us-east-1", "g6.xlarge", "nvidia-l4", 1.0, "spot", "0.3612", "0.8048", 50),
        )
    ):
        began = now - datetime.timedelta(hours=hours)
        ended = began + datetime.timedelta(hours=20) if number == 3 else None
        machine = InstanceRecord(
            instance_id=f"i-0c4f{number}a91",
            zone=f"{region}b",
            state=InstanceState.TERMINATED if ended else InstanceState.RUNNING,
            wanted=InstanceState.TERMINATED if ended else InstanceState.RUNNING,
            periods=(Period(began=began, ended=ended),),
        )
        record = LaunchRecord(
            acquisition=f"a{number:010d}",
            number=0,
            owner="fleet",
            phase=Phase.LAUNCHED,
            provider=provider,
            region=region,
            zone=None,
            market=Market(market),
            instance_type=kind,
            gpu_type=gpu,
            gpu_count=gpus,
            count=1,
            min_count=1,
            usd_per_hour=Decimal(usd),
            on_demand_usd_per_hour=Decimal(on_demand),
            max_usd_per_hour=None,
            image=None,
            disk_gib=100,
            user_data_digest=None,
            created_at=began,
            process="here|boot|1|2",
            instances=(machine,),
        )
        assert journal.create(record)


def scale(state: Path, *, periods: int = 120) -> None:
    """A day's wave of load, and what our policy made of it."""
    policy = LLMPolicy(ScalingPolicy(capacity=ReplicaCapacity(requests_per_s=3.0), period_s=PERIOD_S))
    book = Book(open_store(str(state)), FLEET)
    begun_s = time.time() - periods * PERIOD_S
    kept = book.load()
    ready = 2
    for number in range(1, periods + 1):
        rate = 9.0 + 7.0 * math.sin(number / 30) + 0.8 * math.sin(number * 2.3)
        seen = Observation(
            time_s=begun_s + number * PERIOD_S,
            ready=ready,
            request_rate=rate,
            prompt_tokens_rate=rate * 600,
            output_tokens_rate=rate * 200,
            running_requests=rate * 4,
            waiting_requests=0.0,
            slo_attainment=0.99,
        )
        decision = policy.decide(seen)
        record = record_of(
            decision,
            seen,
            number=number,
            decision_id=f"d{number:015d}",
            target=decision.target,
            before=kept.target,
            alerts=tuple((alert.name, alert.text) for alert in decision.alerts),
            horizon_s=policy.lead_s,
            holder="here",
        )
        kept = State(
            token=1,
            number=number,
            target=decision.target,
            policy_name="textnlp-fast",
            recent=(*kept.recent, record),
        ).with_outcome("told")
        kept = book.write(kept)
        ready = decision.target
