"""Students of 02."""

import numpy as np

from overload_demo.lab.job_log import JobLog
from tests.notebooks.students import Students

SALE = {"arrival_per_s": 800, "drain_per_s": 300, "spike_s": 30}
# Four jobs in 8 s, which wait 2, 3, 4 and 5 s: L = 4/8 x 3.5. The spike alone lasts 3 s.
LOG = {"log": JobLog(np.arange(4.0), np.arange(4.0), np.arange(4.0), np.array([2.0, 4.0, 6.0, 8.0]), 4)}
LITTLE = 1.75
NO_NUMBERS = [("15,000", "without quotes"), ([15_000], "a number"), ((15, 0), "decimal point")]

STUDENTS = [
    Students(
        "02.peak_depth",
        facts=SALE,
        right=[15_000],
        wrong=[
            (24_000, "as if none left"),
            (500, "How many seconds"),
            (9_000, "done during the spike"),
            (-15_000, "below 0"),
        ],
        wrong_type=NO_NUMBERS,
    ),
    Students(
        "02.seconds_to_empty",
        facts=SALE,
        right=[80],
        wrong=[
            (50, "T comes on top"),
            (30 + 15_000 / 800, "divided by λ. Nothing arrives"),
            (15_000 / 800, "divided by λ, the arrival rate"),
            (60, "is how it grows"),
            (30, "deepest"),
        ],
        wrong_type=NO_NUMBERS,
    ),
    Students(
        "02.wait",
        facts=SALE,
        right=[50],
        wrong=[
            (80, "counted from the first request"),
            (15_000 / 800, "divided by λ"),
            (25, "the mean wait"),
            (1 / 300, "one job takes"),
        ],
        wrong_type=NO_NUMBERS,
    ),
    Students(
        "02.half",
        facts=SALE,
        right=[6_000],
        wrong=[
            (7_500, "does not halve"),
            (15_000, "the old peak"),
            (30_000, "deeper"),
            (200, "in one second"),
            (3_000, "halved λ"),
        ],
        wrong_type=NO_NUMBERS,
    ),
    Students(
        "02.little",
        facts=LOG,
        right=[LITTLE, LITTLE * 1.04],
        wrong=[
            (LITTLE * 8 / 3, "divided by the spike alone"),
            (3.5, "That is W"),
            (14, "sum of all waits"),
            (0.5, "That is λ"),
            (2, "a guess from the figure"),
        ],
        wrong_type=[*NO_NUMBERS, (np.array([2.0, 3.0]), "a number")],
    ),
]
