"""Students of 08."""

from overload_demo.lab.report import Bill
from tests.notebooks.students import Students

# 600 jobs over 50 ms, about as measured.
BILL = Bill(90, 99, 4_443, name="group commit", jobs=600, seconds=3.1)
PLAIN = Bill(240, 240, 240, name="plain recipe", jobs=30, seconds=9.0)
PER_JOB = 4_443 / 600

STUDENTS = [
    Students(
        "08.batch",
        facts={"arrival_per_s": 1_000, "call_s": 0.0575},
        right=[29],
        wrong=[
            (28.75, "round up"),
            (28, "round up"),
            (32, "the smallest one"),
            (58, "each takes a part"),
            (57.5, "each takes a part"),
            (115, "you doubled it"),
            (500, "calls of one second"),
            (2 / 0.0575, "how many calls are made"),
            (28_750, "in milliseconds"),
        ],
        wrong_type=[("29", "without quotes"), ("29 jobs", "without quotes"), ([29], "a number, not")],
    ),
    Students(
        "08.batch",
        facts={"arrival_per_s": 150, "call_s": 0.056},
        right=[5],
        wrong=[(9, "each takes a part"), (4, "round up")],
    ),
    Students(
        "08.quota",
        facts={"bill": BILL, "plain_bill": PLAIN},
        right=[500_000 / PER_JOB, round(500_000 / PER_JOB)],
        wrong=[
            (500_000 * 600 / 99, "the cheaper way"),
            (500_000 * 600 / 90, "REST calls"),
            (500_000 * PER_JOB, "no jobs: divide"),
            (500_000 / 4_443, "all its jobs"),
            (500_000, "takes several"),
            (500_000 / 8, "the plain recipe"),
            (PER_JOB / 500_000, "Upside down"),
        ],
        wrong_type=[("67,522", "without quotes"), (BILL, "a number, not")],
    ),
    Students(
        "08.idle",
        facts={"free_commands": 500_000, "commands_per_s": 1},
        right=[500_000 / 86_400, 5.8],
        wrong=[
            (500_000, "These are seconds"),
            (500_000 / 60, "These are minutes"),
            (500_000 / 3600, "These are hours"),
            (500_000 / 30, "commands a day the quota allows"),
            (5.184, "how many times the quota"),
            (6, "rounded"),
            (0.1728, "Upside down"),
        ],
        wrong_type=[("5.8 days", "without quotes"), ((5, 8), "decimal point")],
    ),
    Students(
        "08.durability",
        right=["acknowledged by the store", "Acknowledged by the store"],
        wrong=[
            ("on disk", "more than the store does"),
            ("lost within a second", "no bound is known"),
            ("in memory only", "not by when"),
        ],
        wrong_type=[("unknown", "one of"), (True, "one of")],
    ),
]
