"""How many requests a second a server takes: the base for choosing a rate it is meant to stand."""

import numpy as np
from pydantic import SecretStr

from overload_demo.errors import OverloadDemoError
from overload_demo.load.generator import run_load
from overload_demo.load.plan import LoadPlan

WARM_UP_SHARE = 0.2
MAX_RATE_PER_S = 30_000


async def calibrate(
    url: str,
    duration_s: float = 3.0,
    connections: int = 64,
    *,
    success_status: int = 202,
    api_key: SecretStr | None = None,
) -> float:
    """Return the accepted requests a second of ``connections`` clients in a closed loop over ``duration_s`` seconds.

    Measured by a load process, without the first fifth (connections open, code paths warm up). The requests are real:
    point it at a server whose jobs nobody needs. Raises :class:`OverloadDemoError` when nothing was accepted.
    """
    plan = LoadPlan(
        url,
        requests=int(MAX_RATE_PER_S * duration_s),
        connections=connections,
        max_duration_s=duration_s,
        success_status=success_status,
    )
    result = await run_load(plan, api_key=api_key)
    done_s = result.done_s[result.accepted]
    from_s = WARM_UP_SHARE * duration_s
    counted = int(np.count_nonzero((done_s >= from_s) & (done_s <= duration_s)))
    if not counted:
        raise OverloadDemoError(f"{url} accepted nothing in {duration_s:g} s, so there is no rate to choose")
    return counted / (duration_s - from_s)
