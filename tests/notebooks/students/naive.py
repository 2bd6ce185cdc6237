"""Students of 01."""

from overload_demo.lab.result import recorded_baseline
from tests.notebooks.students import Students
from tests.support.steps import step

OVERLOAD = step()  # 664 jobs completed, 32 of them answered in time, 2,400 requests
SPIKE = {run.variant: run.summary.accepted for run in recorded_baseline() if run.shape == "spike"}
TIMES = SPIKE["def-no-slot"] / SPIKE["def-slot"]
WHY = "no scarce resource"

STUDENTS = [
    Students(
        "01.capacity",
        facts={"delay_s": 0.01},
        right=[1 / 0.01],
        wrong=[
            (0.01, "in seconds"),
            (10, "in milliseconds"),
            (4000, "one slot"),
            (0.1, "jobs a millisecond"),
            (6000, "jobs a minute"),
        ],
        wrong_type=[("100", "without quotes"), ("100/s", "without quotes")],
    ),
    Students(
        "01.error_class",
        facts={"step": OVERLOAD},
        right=["read timeout", "Read_Timeout"],
        wrong=[
            ("answered", "were not answered"),
            ("refused", "it was busy"),
            ("connect_timeout", "got a connection"),
            ("reset", "has cut"),
            ("disconnected", "have closed"),
            ("status 500", "with an error"),
            ("status 503", "clear refusal"),
        ],
        wrong_type=[(504, "one of"), ("too slow", "one of"), (["read timeout"], "one of")],
    ),
    Students(
        "01.error_class",
        facts={"step": step(failed_by="connect_timeout")},
        right=["connect timeout"],
        wrong=[("read timeout", "Most ended otherwise")],
    ),
    Students(
        "01.wasted",
        facts={"step": OVERLOAD},
        right=[632 / 664],
        wrong=[
            (632, "Which share"),
            (95.2, "not in percent"),
            (32 / 664, "still wanted"),
            (632 / 2400, "not by the requests"),
            (1 - 32 / 2400, "requests that failed"),
        ],
        wrong_type=[([0.95], "is a number"), ("95 %", "without quotes"), ((0, 95), "decimal point")],
    ),
    Students(
        "01.wasted",
        facts={"step": step(completed=32)},
        right=[0],
    ),
    Students(
        "01.threads",
        facts={"runs": recorded_baseline()},
        right=[(WHY, TIMES), (WHY, round(TIMES, 1))],
        wrong=[
            (("more threads", TIMES), "the same 40 threads"),
            (("faster code", TIMES), "same code"),
            (("async", TIMES), "does not win"),
            ((WHY, 1 / TIMES), "Upside down"),
            ((WHY, 40), "What was measured"),
            ((WHY, SPIKE["def-no-slot"] - SPIKE["def-slot"]), "the difference"),
        ],
        wrong_type=[(WHY, "a pair"), ((16, TIMES), "one of"), ((WHY, "16"), "without quotes")],
        unfinished=[(..., ...), (WHY, ...)],
    ),
]
