"""Answers to the exercises of 01."""

from typing import Any

from overload_demo.lab.result import recorded_baseline
from tests.support.steps import step

OVERLOAD = step()
WORK, STEP = {"delay_s": 0.01}, {"step": OVERLOAD}
RUNS = {"runs": recorded_baseline()}
SPIKE = {run.variant: run.summary.accepted for run in recorded_baseline() if run.shape == "spike"}
TIMES = SPIKE["def-no-slot"] / SPIKE["def-slot"]

WRONG: list[tuple[str, Any, dict[str, Any], str]] = [
    ("01.capacity", 0.01, WORK, "in seconds"),
    ("01.capacity", 10, WORK, "in milliseconds"),
    ("01.capacity", 4000, WORK, "one slot"),
    ("01.capacity", "100", WORK, "without quotes"),
    ("01.capacity", 50, WORK, "too small"),
    ("01.error_class", "answered", STEP, "largest piece"),
    ("01.error_class", "refused", STEP, "it was busy"),
    ("01.error_class", "connect_timeout", STEP, "got a connection"),
    ("01.error_class", "status 503", STEP, "clear refusal"),
    ("01.error_class", "read timeout", {"step": step(failed_by="connect_timeout")}, "Most ended otherwise"),
    ("01.error_class", "too slow", STEP, "one of"),
    ("01.error_class", 504, STEP, "one of"),
    ("01.wasted", 632, STEP, "Which share"),
    ("01.wasted", 95.2, STEP, "not in percent"),
    ("01.wasted", 32 / 664, STEP, "still wanted"),
    ("01.wasted", 632 / 2400, STEP, "not by the requests"),
    ("01.wasted", 1 - 32 / 2400, STEP, "requests that failed"),
    ("01.wasted", [0.95], STEP, "is a number"),
    ("01.threads", "no scarce resource", RUNS, "a pair"),
    ("01.threads", ("more threads", TIMES), RUNS, "the same 40 threads"),
    ("01.threads", ("faster code", TIMES), RUNS, "same code"),
    ("01.threads", ("async", TIMES), RUNS, "does not win"),
    ("01.threads", (16, TIMES), RUNS, "one of"),
    ("01.threads", ("no scarce resource", 1 / TIMES), RUNS, "Upside down"),
    ("01.threads", ("no scarce resource", 40), RUNS, "What was measured"),
    ("01.threads", ("no scarce resource", SPIKE["def-no-slot"] - SPIKE["def-slot"]), RUNS, "the difference"),
    ("01.threads", ("no scarce resource", "16"), RUNS, "without quotes"),
]
RIGHT: list[tuple[str, Any, dict[str, Any]]] = [
    ("01.capacity", 1 / 0.01, WORK),
    ("01.error_class", "read timeout", STEP),
    ("01.error_class", "Read_Timeout", STEP),
    ("01.error_class", "connect timeout", {"step": step(failed_by="connect_timeout")}),
    ("01.wasted", 632 / 664, STEP),
    ("01.wasted", 0, {"step": step(completed=32)}),
    ("01.threads", ("no scarce resource", TIMES), RUNS),
    ("01.threads", ("no scarce resource", round(TIMES)), RUNS),
]
