"""Students of 04."""

from overload_demo.lab.result import SpikeResult
from tests.notebooks.kernels import ROOT
from tests.notebooks.students import Students

RECORDED = SpikeResult.read(ROOT / "experiments" / "results" / "spike.json")
SLOWER = RECORDED.model_copy(
    update={
        "drain_rate_per_s": RECORDED.drain_rate_per_s / 3,
        "seconds_to_empty": RECORDED.seconds_to_empty * 2.5,
    }
)
# API and worker in one interpreter: 300 jobs/s while 1,500/s come for 20 s, 1,600/s after the peak of 24,000.
AT_S = [float(second) for second in range(36)]
SETTLED = [int(min(300 * at_s, 6_000) + 1_600 * max(0.0, at_s - 20)) for at_s in AT_S]
DEPTH = [int(1_500 * min(at_s, 20)) - done for at_s, done in zip(AT_S, SETTLED, strict=True)]
SERIES = RECORDED.series.model_copy(
    update={"sampled_at_s": AT_S, "settled": SETTLED, "queue_depth": DEPTH, "in_flight": [0] * len(AT_S)}
)
IN_KERNEL = RECORDED.model_copy(
    update={
        "series": SERIES,
        "offered": 30_000,
        "peak_queue_depth": max(DEPTH),
        "drain_rate_per_s": SERIES.drain_rate_per_s(),
        "seconds_to_empty": SERIES.seconds_to_empty(),
    }
)

STUDENTS = [
    Students(
        "04.hours",
        facts={"jobs": 100_000, "seconds_a_job": 2.0},
        right=[200_000 / 3600, 55.6],
        wrong=[
            (200_000, "These are seconds"),
            (200_000 / 60, "These are minutes"),
            (200_000 / 86_400, "These are days"),
            (100_000 / 3600, "if a job took one second"),
            (50_000 / 3600, "multiply, do not divide"),
        ],
        wrong_type=[("55.6", "without quotes"), ((55, 6), "decimal point")],
    ),
    Students(
        "04.drain_time",
        facts={"result": RECORDED},
        right=[RECORDED.series.seconds_from_peak()],
        wrong=[
            (RECORDED.offered / RECORDED.drain_rate_per_s, "all jobs"),
            (RECORDED.peak_queue_depth / RECORDED.conditions.rate_per_s, "arrival rate"),
            (RECORDED.drain_rate_per_s / RECORDED.peak_queue_depth, "Upside down"),
        ],
        wrong_type=[("27 s", "without quotes"), ([27.0], "a number")],
    ),
    Students(
        "04.drain_time",
        facts={"result": IN_KERNEL},
        right=[15, 16, 24_000 / 1_600],
        wrong=[(24_000 / SERIES.drain_rate_per_s(), "after its peak"), (35, "counted from the first request")],
    ),
    Students(
        "04.reconcile",
        right=[lambda accepted, done: len(accepted - done), lambda accepted, done: accepted - done],
        wrong=[
            (lambda accepted, done: len(accepted) - len(done), "although both counts are 2"),
            (lambda accepted, done: len(done) - len(accepted), "which number do you subtract"),
            (lambda accepted, done: len(done - accepted), "which set from which"),
            (lambda accepted, done: len(accepted ^ done), "only its 202 is missing"),
            (lambda accepted, done: abs(len(accepted) - len(done)), "although both counts are 2"),
            (lambda accepted, done: len(accepted & done), "jobs that were done"),
            (lambda accepted, done: max(len(accepted - done), len(done - accepted)), "is no loss"),
        ],
        wrong_type=[
            (0, "called like"),
            ({"b", "c"}, "called like"),
            (lambda accepted, done: None, "write return"),
            (lambda accepted, done: "2", "neither a number nor a set"),
            (lambda accepted, done: {"lost": 2}, "neither a number nor a set"),
        ],
        unfinished=[lambda accepted, done: ...],
    ),
    Students(
        "04.where",
        right=["door", "Door"],
        wrong=[("queue", "no 202 yet"), ("worker", "time of the work"), ("nowhere", "not shorter")],
        wrong_type=[(1, "one of"), ("here", "one of")],
    ),
    Students(
        "04.gil",
        facts={"kernel": SLOWER, "processes": RECORDED},
        right=[3, 3.1],
        wrong=[
            (1 / 3, "Upside down"),
            (2, "by which share"),
            (300, "in percent"),
            (RECORDED.drain_rate_per_s * 2 / 3, "the difference"),
            (2.5, "times to empty"),
        ],
        wrong_type=[("3 times", "without quotes")],
    ),
]
