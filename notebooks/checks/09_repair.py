"""Exercises of notebook 09: six repairs, judged by the grader, and the design of a sale."""

from overload_demo.course.exercise import MEASURED, exercise, finite, multiple_choice, number, shown
from overload_demo.lab import RetryPolicy, theory
from overload_demo.lab.history import Grading

_NOT_REMOVED = (
    "A job that is done stays on the list of leased jobs, so the next worker does it again: what acknowledges a job?"
)
_NO_RESULT = 'No fault is needed for that: the hash "results" has no entry for the job. HSET takes hash, job, result.'
_NOT_DONE = "No fault is needed for that: follow the job through one call of `work`. Where does it end?"
_ON_BOTH_LISTS = (
    "Recovery was killed between its two steps, and the job is on both lists: each of them brings it to a worker. Which"
    " command moves it in one step?"
)
_NOT_RECOVERED = (
    "The job is safe on that list, but no program looks at it: what does a worker do with the jobs of a dead one?"
)

# Rung -> (broken promise, part of the fault's name) -> hint; the first that fits.
_HINTS: dict[str, dict[tuple[str, str], str]] = {
    "1_pop.py": {
        ("lost", "no fault"): _NO_RESULT,
        ("lost", "the one after it"): (
            "Recovery can be killed too: between taking a job off one list and putting it onto the other it is on none."
        ),
        ("lost", ""): (
            "From the pop on, the job was in the memory of one process only. Which command moves it to a second list?"
        ),
        ("left behind", "no fault"): _NOT_DONE,
        ("left behind", ""): _NOT_RECOVERED,
        ("repeated without a fault", "the one after it"): _ON_BOTH_LISTS,
        ("repeated without a fault", ""): _NOT_REMOVED,
    },
    "2_acknowledge.py": {
        ("lost", "no fault"): _NO_RESULT,
        ("lost", ""): "What comes after the LREM is lost with the worker: the work, and the storing of its result too.",
        ("left behind", "no fault"): _NOT_DONE,
        ("left behind", ""): _NOT_RECOVERED,
        ("repeated without a fault", "the one after it"): _ON_BOTH_LISTS,
        ("repeated without a fault", ""): _NOT_REMOVED,
    },
    "3_fence.py": {
        ("result changed", ""): (
            "A worker that stood still settled a job that was no longer its own. The script that writes must compare"
            " the fence, in the same step: whatever is read before may be old."
        ),
        ("lost", "dies"): (
            "The late worker wrote no result, but it ended the lease of the other one: a lease is guarded as well."
        ),
        (
            "left behind",
            "a worker is killed",
        ): "A lease of 30 s frees the jobs of a dead worker: a longer one does not.",
        ("left behind", ""): "No result is written although the worker is on time: is the comparison ever true?",
        ("repeated without a fault", ""): (
            "The lease of a job that is done ran out, and it was leased again: a settled job has no lease. If yours"
            " is never settled, look at the comparison: which way round, and of two texts? In Lua '1' and 1 differ."
        ),
    },
    "4_idempotent.py": {
        ("enqueued twice", ""): (
            "The repeat did not find the first one: the key must be recorded in the store, in the same step."
        ),
        ("lost", ""): (
            "The key was recorded, and the API died before the push: the repeat then believed that the job was queued."
        ),
        ("left behind", ""): "The order is on a list that the worker does not read.",
        ("repeated without a fault", ""): "One id, pushed again by the repeat: a list takes the same id twice.",
        ("orders merged", ""): "Two clients want the same: their orders are equal, their keys are not.",
    },
    "5_bound.py": {
        ("too late", "last place"): (
            "Both requests saw the free place before either took it: looking and pushing must be one step."
        ),
        ("too late", ""): "The queue has accepted more than can be done in time. How many jobs fit into 3 s?",
        ("refused with room", ""): "There was room. Count again, and look at what submit returns: True is accepted.",
        ("forbidden", ""): "The client was refused, and the job is in the queue all the same: decide before you push.",
        ("lost", ""): "A job that was accepted has been dropped to make room. Refuse the new one instead.",
    },
    "6_budget.py": {
        ("lost", "no fault"): _NO_RESULT,
        ("started too often", "kills"): (
            "This job kills its worker: no line behind `run` is reached, and memory is gone. Count in the store, first."
        ),
        ("started too often", ""): "Nothing counts the attempts: the store can (HINCRBY), and `work` can give up.",
        ("given up too early", ""): "Work that fails once may succeed the next time: the budget is three attempts.",
        ("lost", "killed"): (
            "A worker was killed between two commands that move the job: put it onto the new list before it is removed."
        ),
        ("lost", ""): 'A job that is given up must stay visible, on the list "dead".',
        ("left behind", "no fault"): _NOT_DONE,
        ("left behind", ""): _NOT_RECOVERED,
    },
}


def _repair(answer: object, file: str) -> str:
    if not isinstance(answer, Grading):
        return f"The answer is what grade(...) returns for your file, not {shown(answer)}."
    if answer.status == "ended":
        return f"{answer.file}: {answer.broken}."
    if answer.file != file:
        return f"This is the grading of {answer.file}: on this rung, grade {file}."
    if answer.status == "holds":
        return ""
    if not answer.is_changed:
        return f"{file} is still as it was shipped: open it in the folder repairs, change it, and save it."
    hints = _HINTS[file].items()
    hint = next((text for (kind, story), text in hints if kind == answer.kind and story in answer.story), "")
    return f"{answer.story[0].upper()}{answer.story[1:]}: {answer.broken}. {hint}".strip()


def _register(key: str, file: str) -> None:
    exercise(
        key,
        "Run the cell with the picture again: it shows your file. Go down to the last step before the broken promise.",
    )(lambda answer, **_: _repair(answer, file))


for _key, _file in zip(("pop", "acknowledge", "fence", "idempotent", "bound", "budget"), _HINTS, strict=True):
    _register(f"09.{_key}", _file)


multiple_choice(
    "09.cure",
    "a script that looks and writes",
    {
        "a longer lease": "Another time-out moves the moment of the fault. A worker can stand still for any time.",
        "a faster store": "The gap between two commands gets shorter, and stays: a kill can fall into any gap.",
        "more workers": "More processes make more ways in which steps of two of them can mix.",
        "a retry": "A retry repeats the steps, with the same gap between them.",
    },
    "Compare the pictures of the rungs 3, 4 and 5: between which two steps did the other process come?",
)


@exercise(
    "09.workers",
    "In the sale, λ T bookings arrive. n workers do n μ (T + aim) of them until the last one may be finished.",
    "Solve λ T = n μ (T + aim) for n, and round up.",
)
def _workers(answer: object, *, arrival_per_s: float, worker_per_s: float, sale_s: float, aim_s: float) -> str:
    value = finite(answer)
    if isinstance(value, str):
        return value
    right = theory.fewest_workers(arrival_per_s, worker_per_s, sale_s, aim_s)
    load = arrival_per_s / worker_per_s
    if value != int(value):
        return "A part of a worker is no process: a whole number."
    if value == right:
        return ""
    if value < right:
        return f"{value:g} workers do {value * worker_per_s:g} a second: the queue outgrows what is done in time."
    if value < load + 1:
        return "They would keep up without any queue. The queue may hold what is done within aim_s after the sale."
    return "That holds too, but it is more than needed: workers cost money."


@exercise("09.sale_bound", "Little's law, L = λ W: the last job in the queue waits L ÷ (the rate of all workers).")
def _sale_bound(
    answer: object,
    *,
    workers: int,
    worker_per_s: float,
    aim_s: float,
    done_within_s: float,
    arrival_per_s: float,
    sale_s: float,
    scale: float,
) -> str:
    rate = workers * worker_per_s
    mistakes = {
        arrival_per_s
        * aim_s: "You took λ. How long a booking waits depends on how fast the workers do those before it.",
        rate * aim_s / scale: "That is the bound of the shorter scale. Asked is the time of the brief.",
        (arrival_per_s - rate) * sale_s: (
            "So deep the queue gets if all numbers of the brief are right. How deep may it get at most?"
        ),
        worker_per_s * aim_s: "That is the bound for one worker: the queue is emptied by all of them.",
        rate * done_within_s: "That leaves no room: a booking also runs, and workers lease some in advance. Use aim_s.",
        rate: "That is what leaves in one second. How many seconds may a booking wait?",
    }
    return number(answer, rate * aim_s, within=MEASURED, mistakes=mistakes)


@exercise(
    "09.retry",
    "Read what RetryPolicy says about its fields: help(RetryPolicy).",
    "For example RetryPolicy(attempts=4, budget=0.2): the rest of the defaults is good.",
)
def _retry(answer: object) -> str:
    if not isinstance(answer, RetryPolicy):
        return f"The answer is a RetryPolicy(...), not {shown(answer)}."
    if answer.attempts == 1:
        return "One attempt: a customer who is refused once goes away, although a place is free a second later."
    if not answer.idempotency_key:
        return "Without the same key with each attempt, a customer whose answer was lost buys twice (rung 4)."
    if not answer.retry_after:
        return "The API says with Retry-After when there will be room: coming earlier only costs both sides."
    if answer.budget is None:
        return f"Nothing limits the repeats of all customers together: they can be {answer.attempts} times the load."
    if answer.budget > 0.5:
        return f"A budget of {answer.budget:g} allows more than 1.5 attempts each: it is a share, 10 % is 0.1."
    if answer.budget == 0:
        return "A budget of 0 allows next to no repeats: customers who are refused once go away."
    if answer.jitter == "none":
        return "Without jitter all who were refused together come back together."
    return ""
