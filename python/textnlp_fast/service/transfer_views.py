"""Jobs as the API shows them."""

from __future__ import annotations

import re
from typing import Final, cast

from textnlp_fast.service.jobs import Job, Standing
from textnlp_fast.service.jobs.records import State as JobState
from textnlp_fast.service.jobs.records import time_text
from textnlp_fast.service.live_schemas import Kind, State, TransferProblem, TransferProgress, TransferView

__all__ = ["order_of", "transfer_view"]

_END_OF_TIME_MS: Final = 10**15


def transfer_view(job: Job) -> TransferView:
    """A job as it stands."""
    problem = job.problem
    return TransferView(
        id=job.id,
        kind=cast(Kind, job.kind),
        model=job.model,
        version=job.version,
        state=cast(State, str(job.state)),
        created_at=time_text(job.created_s),
        started_at=None if job.started_s is None else time_text(job.started_s),
        ended_at=None if job.ended_s is None else time_text(job.ended_s),
        by=job.by,
        attempts=job.attempts,
        cancelling=job.cancelling and not job.state.ended,
        request=dict(job.request),
        # Of one that is done nothing is left to tell, and what was told last is from before its end.
        progress=None if job.standing is None or job.state is JobState.DONE else _progress(job.standing),
        result=None if job.result is None else dict(job.result),
        problem=None
        if problem is None
        else TransferProblem(
            code=problem.code,
            title=re.sub(r"(?<=[a-z])(?=[A-Z])", " ", problem.code).capitalize(),
            detail=problem.detail,
            hint=problem.hint,
        ),
    )


def _progress(standing: Standing) -> TransferProgress:
    rate, left = standing.bytes_per_s, standing.total_bytes - standing.done_bytes
    return TransferProgress(
        phase=standing.phase,
        done_bytes=standing.done_bytes,
        total_bytes=standing.total_bytes,
        bytes_per_s=rate,
        eta_s=round(left / rate, 1) if rate else None,
    )


def order_of(job: Job) -> str:
    """Sorts the newest first, and is a cursor."""
    return f"{_END_OF_TIME_MS - round(job.created_s * 1000):015d}-{job.id}"
