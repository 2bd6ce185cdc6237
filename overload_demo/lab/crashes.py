"""A spike with accidents on the way: fire a load, ``kill -9`` parts of the stack, account for every job afterwards."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.lab.crash_result import CrashResult, account_for
from overload_demo.lab.spike_plan import OnProgress, SpikePlan, SpikeProgress
from overload_demo.lab.spike_run import run_spike
from overload_demo.lab.stack import KILLABLE, Stack


@dataclass(frozen=True)
class Kill:
    """``kill -9`` of ``part`` once a share of the requests is done (a worker) or accepted (any other part).

    ``part`` is "api", "worker", "gateway" or "redis". Raises :class:`ConfigurationError` for another one, and for a
    share that is not between 0 and 1.
    """

    part: str
    after_share: float

    def __post_init__(self) -> None:
        if self.part not in KILLABLE:
            raise ConfigurationError(f"cannot kill {self.part!r}: it is one of {', '.join(KILLABLE)}")
        if not 0 < self.after_share < 1:
            raise ConfigurationError(f"after_share must be between 0 and 1, not {self.after_share:g}")

    def is_due(self, seen: SpikeProgress) -> bool:
        """Whether the spike has come so far."""
        so_far = seen.settled if self.part == "worker" else seen.accepted
        return seen.stage in ("fire", "drain") and so_far >= self.after_share * seen.offered


async def run_with_kills(
    stack: Stack, plan: SpikePlan, kills: Sequence[Kill], on_progress: OnProgress | None = None
) -> CrashResult:
    """Run ``plan`` on ``stack``, carry out ``kills`` in their order on the way, and account for every accepted job.

    A kill that is not due before the spike is over is not in the result. Writes ``crash.json`` beside what
    :func:`run_spike` writes. Cancellable at any moment: the stack stays, as after :func:`run_spike`. Raises
    :class:`ConfigurationError` for a stack in the kernel, and what :func:`run_spike` raises.
    """
    if stack.placement != "process":
        raise ConfigurationError('kills need placement="process": a thread cannot be killed without its kernel')
    waiting, done = list(kills), list[tuple[str, float]]()

    def note(progress: SpikeProgress) -> None:
        if waiting and waiting[0].is_due(progress) and (at_mono_s := _carry_out(stack, waiting[0])):
            done.append((waiting.pop(0).part, at_mono_s))
        if on_progress:
            on_progress(progress)

    spike = await run_spike(stack, plan, note)
    result = account_for(stack.run_folder, stack.effect_log, spike, done)
    result.save(stack.run_folder)
    return result


def _carry_out(stack: Stack, kill: Kill) -> float | None:
    """Returns when, CLOCK_MONOTONIC; None when there is nobody to kill: who has just died may not be back yet."""
    with contextlib.suppress(OverloadDemoError):
        return stack.kill(kill.part)
    return None
