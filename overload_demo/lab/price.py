"""What Upstash bills for a run: told beforehand from a recorded one, and afterwards from what was counted.

Whether a script counts as one command or with all those it calls, the vendor's pages do not say; so both are told.
"""

from dataclasses import dataclass

from overload_demo.worker.loop import BATCH_TARGET_S

# upstash.com/pricing/redis, 2026-08: pay as you go in US dollars, and what is free in a month.
PRICE_PER_100K_COMMANDS = 0.20
FREE_COMMANDS_PER_MONTH = 500_000

# A job's whole life in the recorded run through a round trip of 50 ms, experiments/results/spike_far.json, rounded up
# (a test compares them). There the worker leased as many jobs at once as it ever does.
CALLS_PER_JOB = 0.05
SCRIPTS_PER_JOB = 0.1
COMMANDS_PER_JOB = 7.0
JOBS_PER_LEASE = 125.0
COMMANDS_PER_SCRIPT = 12.0  # whatever its jobs: of lease and settle, about (lua/lease.lua, lua/settle.lua)


@dataclass(frozen=True)
class Estimate:
    """About what a run will ask: HTTP exchanges, and commands, a script being one or all that it calls."""

    calls: int
    least_commands: int
    most_commands: int

    @property
    def told(self) -> str:
        """It in one line."""
        return (
            f"about {self.calls:,} calls: {self.least_commands:,} commands where a script counts as one "
            f"({_share(self.least_commands)}, {dollars(self.least_commands)}), {self.most_commands:,} where those "
            f"inside it count too ({_share(self.most_commands)}, {dollars(self.most_commands)}); "
            "the vendor does not say which"
        )


def estimate(jobs: int, job_s: float) -> Estimate:
    """What so many jobs will ask that take ``job_s`` seconds each: slow ones are leased and settled one by one."""
    per_lease = min(JOBS_PER_LEASE, max(1.0, BATCH_TARGET_S / max(job_s, 1e-6)))
    more = 1 / per_lease - 1 / JOBS_PER_LEASE  # exchanges a job; each settles and leases
    return Estimate(
        round(jobs * (CALLS_PER_JOB + more)),
        round(jobs * (SCRIPTS_PER_JOB + 2 * more)),
        round(jobs * (COMMANDS_PER_JOB + 2 * more * COMMANDS_PER_SCRIPT)),
    )


def dollars(commands: int) -> str:
    """What they cost when paid as they go."""
    price = commands / 100_000 * PRICE_PER_100K_COMMANDS
    return f"${price:.2f}" if price >= 0.1 else f"${price:.3f}"


def _share(commands: int) -> str:
    return f"{commands / FREE_COMMANDS_PER_MONTH:.1%} of the {FREE_COMMANDS_PER_MONTH:,} free in a month"
