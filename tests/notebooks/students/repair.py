"""Students of 09. The files that give these gradings stand in ``tests/notebooks/wrong_repairs.py``."""

from overload_demo.lab import RetryPolicy
from overload_demo.lab.history import Grading
from tests.notebooks.students import Students

ANY = Grading("5_bound.py", "holds", plays=6)
SIZES = {"arrival_per_s": 300, "worker_per_s": 40, "sale_s": 60, "aim_s": 8}


def broken(file: str, kind: str, story: str = "a worker is killed") -> Grading:
    return Grading(file, "broken", 3, kind, "j1 is not as promised", story, "j1")


def repairs(key: str, file: str, *wrong: tuple[str, str, str]) -> Students:
    """Answers to one rung; ``wrong`` are (broken promise, story, fragment of the hint)."""
    other = "1_pop.py" if file != "1_pop.py" else "2_acknowledge.py"
    return Students(
        key,
        right=[Grading(file, "holds", plays=73)],
        wrong=[
            *((broken(file, kind, story), fragment) for kind, story, fragment in wrong),
            (Grading(file, "broken", 3, "lost", "x", "a kill", is_changed=False), "as it was shipped"),
            (Grading(file, "ended", broken="ended by the grader: this file loops"), "this file loops"),
            (Grading(other, "holds", plays=9), "This is the grading of"),
        ],
        wrong_type=[(f"repairs/{file}", "what grade(...) returns"), (True, "what grade(...) returns")],
    )


STUDENTS = [
    repairs(
        "09.pop",
        "1_pop.py",
        ("lost", "a worker is killed, and the one after it too", "Recovery can be killed"),
        ("lost", "a worker is killed", "in the memory of one process"),
        ("lost", "no fault at all", "has no entry"),
        ("left behind", "a worker is killed", "no program looks at it"),
        ("repeated without a fault", "no fault at all", "stays on the list of leased jobs"),
        ("repeated without a fault", "a worker is killed, and the one after it too", "on both lists"),
        ("left behind", "no fault at all", "one call of `work`"),
    ),
    repairs(
        "09.acknowledge",
        "2_acknowledge.py",
        ("lost", "a worker is killed", "is lost with the worker"),
        ("left behind", "a worker is killed", "no program looks at it"),
        ("repeated without a fault", "no fault at all", "stays on the list of leased jobs"),
    ),
    repairs(
        "09.fence",
        "3_fence.py",
        ("result changed", "a worker is stopped", "no longer its own"),
        ("lost", "a second one dies", "ended the lease of the other one"),
        ("left behind", "a worker is killed", "a longer one does not"),
        ("repeated without a fault", "no fault at all", "a settled job has no lease"),
    ),
    repairs(
        "09.idempotent",
        "4_idempotent.py",
        ("enqueued twice", "an answer does not arrive", "did not find the first one"),
        ("lost", "an answer does not arrive", "believed that the job was queued"),
        ("repeated without a fault", "an answer does not arrive", "takes the same id twice"),
        ("orders merged", "no fault at all", "their keys are not"),
    ),
    repairs(
        "09.bound",
        "5_bound.py",
        ("too late", "two clients want the last place", "before either took it"),
        ("too late", "one client more than fit", "has accepted more than"),
        ("refused with room", "one client more than fit", "There was room"),
        ("forbidden", "one client more than fit", "decide before you push"),
        ("lost", "one client more than fit", "dropped to make room"),
    ),
    repairs(
        "09.budget",
        "6_budget.py",
        ("started too often", "j1 kills each worker that runs it", "memory is gone"),
        ("started too often", "the work of j1 always fails", "Nothing counts the attempts"),
        ("given up too early", "the work of j1 fails once", "may succeed the next time"),
        ("lost", "the work of j1 always fails, and a worker is killed", "two commands that move the job"),
    ),
    Students(
        "09.cure",
        right=["a script that looks and writes"],
        wrong=[
            ("a longer lease", "moves the moment"),
            ("a faster store", "any gap"),
            ("more workers", "can mix"),
            ("a retry", "repeats the steps"),
        ],
        wrong_type=[(1, "one of"), ("Lua", "one of")],
    ),
    Students(
        "09.workers",
        facts=SIZES,
        right=[7],
        wrong=[
            (5, "the queue outgrows"),
            (6.5, "no process"),
            (8, "without any queue"),
            (20, "more than needed"),
        ],
        wrong_type=[("7", "without quotes")],
    ),
    Students(
        "09.sale_bound",
        facts={"workers": 7, "worker_per_s": 40, "aim_s": 8, "done_within_s": 10}
        | {"arrival_per_s": 300, "sale_s": 60, "scale": 5},
        right=[2240],
        wrong=[
            (320, "for one worker"),
            (2800, "leaves no room"),
            (280, "in one second"),
            (2400, "You took λ"),
            (448, "the shorter scale"),
            (1200, "at most?"),
        ],
        wrong_type=[("2240", "without quotes")],
    ),
    Students(
        "09.retry",
        right=[RetryPolicy(attempts=4, budget=0.2), RetryPolicy(attempts=10, budget=0.1)],
        wrong=[
            (RetryPolicy(attempts=1, budget=0.2), "goes away"),
            (RetryPolicy(), "Nothing limits the repeats"),
            (RetryPolicy(budget=20), "it is a share"),
            (RetryPolicy(budget=0), "next to no repeats"),
            (RetryPolicy(budget=0.2, retry_after=False), "when there will be room"),
            (RetryPolicy(budget=0.2, idempotency_key=False), "buys twice"),
            (RetryPolicy(budget=0.2, jitter="none"), "come back together"),
        ],
        wrong_type=[(4, "a RetryPolicy(...)"), ("attempts=4", "a RetryPolicy(...)")],
    ),
]
