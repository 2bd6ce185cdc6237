"""Exercises of notebook 01: how the naive API fails, and when threads help."""

from collections.abc import Sequence

from overload_demo.course.exercise import MEASURED, choice, exercise, number, shown
from overload_demo.lab.naive_api import LoadStep
from overload_demo.lab.result import BaselineRun
from overload_demo.lab.theory import capacity_per_s

THREADS = 40  # in the pool in which the framework runs a plain def


@exercise("01.capacity", "If one job holds the slot for half a second, two jobs a second go through. And here?")
def _capacity(answer: object, *, delay_s: float) -> str:
    right = capacity_per_s(delay_s)
    mistakes = {
        delay_s: "That is the time of one job, in seconds. How many of those fit into a second?",
        delay_s * 1000: "That is the time of one job, in milliseconds. How many of those fit into a second?",
        1 / (1000 * delay_s): "That is jobs a millisecond. How many milliseconds has a second?",
        60 * right: "That is jobs a minute. How many in one second?",
        THREADS * right: f"{THREADS} threads, but one slot: {THREADS - 1} of them wait for it.",
    }
    return number(answer, right, mistakes=mistakes)


_ENDINGS = {
    "answered": "Most requests were not answered. Look at the largest piece of the last bar.",
    "read timeout": "A read timeout is a connection that was made and gave no answer in time. Most ended otherwise.",
    "connect timeout": "Then most would not have got a connection at all. Look at the largest piece of the last bar.",
    "refused": "Refused means that no process listens. The app was there all the time: it was busy.",
    "reset": "A reset is a connection that the server's side has cut. Look at the largest piece of the last bar.",
    "disconnected": "Then the server would have closed most of the connections. Look at the largest piece.",
    "status 500": "The app answered no request with an error. That is the problem: it did not answer at all.",
    "status 503": "A 503 would have been a clear refusal. This app never refuses: all requests wait.",
}


@exercise("01.error_class", "The names are those in the legend of the figure.")
def _error_class(answer: object, *, step: LoadStep) -> str:
    right = max(step.outcomes, key=lambda name: step.outcomes[name])
    word = answer.replace("_", " ") if isinstance(answer, str) else answer
    return choice(word, right, {name: hint for name, hint in _ENDINGS.items() if name != right})


@exercise("01.wasted", "The app's work is step.completed; the answers that came in time are step.answered.")
def _wasted(answer: object, *, step: LoadStep) -> str:
    """The share of the app's work whose client had left, 0 to 1."""
    completed, answered, share = step.completed or 1, step.answered, step.wasted_share
    mistakes = {
        float(step.wasted): "That is the number of jobs. Which share is it of all that the app has completed?",
        100 * share: "Nearly: write it as a share between 0 and 1, not in percent.",
        answered / completed: "That is the share that a client still wanted. Ask for the rest.",
        1 - answered / step.planned: "That is the share of the requests that failed. Ask about the app's work instead.",
        step.wasted / step.planned: "Divide by the work that the app has completed, not by the requests sent.",
    }
    return number(answer, share, within=MEASURED, mistakes=mistakes)


@exercise("01.threads", "Divide what def-no-slot answered in the spike by what def-slot answered.")
def _threads(answer: object, *, runs: Sequence[BaselineRun]) -> str:
    """(why def-no-slot wins, how many times as many requests it answered in the recorded spike as def-slot)."""
    if not isinstance(answer, tuple) or len(answer) != 2:
        return f"The answer is a pair: why, times; not {shown(answer)}."
    why, times = answer
    others = {
        "more threads": f"def-slot has the same {THREADS} threads, and answers the fewest.",
        "faster code": "It is the same code and the same work. One thing is missing in it.",
        "async": "Only async-blocking is an async def, and it does not win.",
    }
    if mistake := choice(why, "no scarce resource", others):
        return mistake
    answered = {run.variant: run.summary.accepted for run in runs if run.shape == "spike"}
    with_slot, without = answered["def-slot"], answered["def-no-slot"]
    mistakes = {
        with_slot / without: "Upside down: how many times as many did def-no-slot answer?",
        float(THREADS): f"{THREADS} is what the threads promise. What was measured?",
        float(without - with_slot): "That is the difference. How many times as many?",
    }
    return number(times, without / with_slot, within=MEASURED, mistakes=mistakes)
