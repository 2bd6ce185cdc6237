"""Blocks that compare with other job queues."""

from experiments.bench.peers.comparison import (
    ACCEPTED,
    CONNECTIONS,
    DONE,
    IDLE,
    MIXED,
    MIXED_P99,
    Comparison,
    median,
    p99,
)
from experiments.bench.peers.libraries import OURS
from experiments.bench.record import Row, markdown_table
from overload_demo.lab import about

BULLMQ = "BullMQ"
BESIDE_BULLMQ = {unit: f"accepted/s, {of} connections" for unit, of in zip(ACCEPTED, CONNECTIONS, strict=True)}
BESIDE_BULLMQ |= {MIXED: "one POST to five polls, requests/s", MIXED_P99: "one POST to five polls, p99"}
STARTED = "one job posted to an idle stack until it has run"


def peers_block(comparison: Comparison) -> str:
    """Return what was measured of every library, and what happens to a job of a killed worker."""
    rows = []
    for one in comparison.summaries():
        rates = [_shown(values) for values in (*one.accepted, one.done, one.one_at_a_time)]
        idle = f"{about(median(one.idle_ms))} / {about(p99(one.idle_ms))}" if one.idle_ms else ""
        name = f"{one.library.name} {one.version}".strip()
        rows.append((name, *rates[:3], one.how, rates[3], idle, one.library.killed))
    heads = (
        *("library", "accepted/s, 64 connections", "256", "empty jobs done/s, fastest", "how many", "one at a time"),
        *("ms from POST to done when idle, p50 / p99", "a job whose worker is killed with -9"),
    )
    mixed = [
        (name, *(_shown(comparison.rates(unit)[name]) for unit in (MIXED, MIXED_P99)))
        for name in comparison.rates(MIXED)
    ]
    mixed_heads = ("one POST to five polls, 256 connections", "requests/s", "p99, ms")
    return f"{markdown_table(heads, rows)}\n\n{markdown_table(mixed_heads, mixed)}"


def bounded_rows(comparison: Comparison) -> list[Row]:
    """Return the ratios to other queues, those with a bound first, and the time of a job on an idle stack."""
    rows = []
    for unit, what in BESIDE_BULLMQ.items():
        bounds = {"at_least": 1.25, "aim": 1.75} if unit in ACCEPTED else {"at_least": 1.0}
        beside = comparison.rows(unit)[BULLMQ]
        rows.append(beside.model_copy(update={"what": f"{what}, own ÷ BullMQ behind Fastify", **bounds}))
    others = [name for name in comparison.rates(DONE) if not name.startswith(OURS.name)]  # the fastest first
    in_node = next(name for name in others if name.startswith(BULLMQ))
    in_python = [name for name in others if not name.startswith(BULLMQ)]
    for name, at_least in zip([in_node, *in_python], (1.5, 3.0), strict=False):
        bounds = {"what": f"empty jobs done/s, own ÷ {name}", "at_least": at_least, "aim": 2 * at_least}
        rows.append(comparison.rows(DONE)[name].model_copy(update=bounds))
    if idle := comparison.rates(IDLE).get(OURS.name):
        for name, values, at_least, aim in (("p50", idle, 50, 15), ("p99", [p99(idle)], 200, 50)):
            what = f"{STARTED}, {name}"
            rows.append(Row(what=what, unit="ms", ours=values, at_least=at_least, aim=aim, less_is_better=True))
    return rows


def _shown(values: list[float]) -> str:
    return f"{median(values):,.0f}" if values else ""
