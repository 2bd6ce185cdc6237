"""Search for a counterexample: all plays of a rung on one file, and how the first broken promise is told.

``python -m overload_demo.course.counterexamples FILE`` prints a :class:`Grading` as JSON.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from overload_demo.course.faults import LADDER, MOST_ATTEMPTS, Rung
from overload_demo.course.referee import NotGradedError, PlayStage, ThrowAwayServer
from overload_demo.course.sandbox import Zygote
from overload_demo.lab.history import Grading, Step, Violations, check_jobs
from overload_demo.process import watch_parent

# The broken promises in the order in which they are reported, and how: ``{job}`` and the checker's ``{text}``.
SENTENCES = {
    "forbidden": "{job} was refused, and it runs all the same",
    "phantom": "a job runs that no client has sent ({text})",
    "enqueued twice": "one request has become two jobs ({text})",
    "repeated without a fault": "{job} was done, and then done again without a fault in between",
    "started too often": "{job} was started more than three times",
    "left behind": "{job} was accepted, and it is never done: it stays in {text}",
    "lost": "{job} was accepted, and it is never done: it is in no list any more",
    "orders merged": "two orders have become one job ({text})",
    "result changed": "a client was told two results ({text})",
    "result of another job": "a client was told the result of another job ({text})",
    "too late": "{text}, and 3 s were promised",
    "refused with room": "{job} was refused, although fewer than three jobs were waiting",
    "given up too early": "a job was given up too early: {text}",
}


def find_counterexample(rung: Rung, zygote: Zygote, file: str) -> Grading:
    """Try all plays of a rung, those with fewer faults first; stop at the first broken promise."""
    found = Grading(file, "holds")
    try:
        server = ThrowAwayServer()
        for play in sorted(rung.plays, key=lambda play: play.cuts):
            cuts: tuple[int, ...] | None = (0,) * play.cuts
            while cuts is not None:
                with PlayStage(server, zygote, play.bad, rung.result, can_refuse=rung.can_refuse) as stage:
                    found = replace(found, plays=found.plays + 1, story=play.story)
                    happened = play.run(stage, *cuts)
                    found = _judge(found, rung, stage, was_killed=bool(cuts))
                if found.status == "broken":
                    return found
                cuts = _next_cuts(cuts, happened)
    except NotGradedError as error:
        return replace(found, status="ended", broken=f"ended by the grader: this file {error}")
    return replace(found, story="")


def _next_cuts(cuts: tuple[int, ...], happened: tuple[bool, ...]) -> tuple[int, ...] | None:
    """Return where to cut next, the last process first. A process that ended before its cut needs no later one."""
    happened = happened[: len(cuts)]
    if not any(happened):
        return None
    return (*cuts[:-1], cuts[-1] + 1) if all(happened) else (cuts[0] + 1, 0)


def _judge(found: Grading, rung: Rung, stage: PlayStage, *, was_killed: bool) -> Grading:
    verdict, history = Violations(), stage.finish()
    check_jobs(history, verdict, max_attempts=rung.most_attempts, is_result_of=rung.is_result_of)
    for rule in rung.rules:
        rule(history, verdict, was_killed)
    kind = next((kind for kind in SENTENCES if kind in verdict.wrong), "")
    if not kind:
        return found
    text = verdict.wrong[kind][0]
    if kind == "lost" and (key := stage.key_of(text.partition(" ")[0])):
        kind, text = "left behind", f"{text.partition(' ')[0]} {key}"
    text = text.removeprefix("value ")
    job = text.partition(" ")[0].rstrip(":")
    broken = SENTENCES[kind].format(job=job, text=text.partition(" ")[2] if kind == "left behind" else text)
    printed = "".join(stage.printed)[:500]
    steps = tuple(stage.steps[: _broke_at(kind, job, stage.steps)])
    return replace(found, status="broken", kind=kind, broken=broken, job=job, steps=steps, printed=printed)


# Which steps show a broken promise, and the how manieth of them does; a promise not listed is broken at the end.
_SHOWN_BY: dict[str, tuple[int, Callable[[Step, str], bool]]] = {
    "forbidden": (2, lambda step, job: step.job == job and (step.kind == "run" or step.told == "refused")),
    "phantom": (1, lambda step, job: step.kind == "run"),
    "enqueued twice": (2, lambda step, job: step.kind == "run"),
    "repeated without a fault": (2, lambda step, job: step.kind == "run" and step.job == job),
    "started too often": (MOST_ATTEMPTS + 1, lambda step, job: step.kind == "run" and step.job == job),
    "result changed": (2, lambda step, job: step.what == f"poll {job}"),
    "result of another job": (1, lambda step, job: step.what == f"poll {job}"),
    "too late": (1, lambda step, job: step.what == f"poll {job}"),
    "refused with room": (1, lambda step, job: step.job == job and step.told == "refused"),
}


def _broke_at(kind: str, job: str, steps: Sequence[Step]) -> int:
    """Return how many steps it takes to break the promise."""
    number, shows = _SHOWN_BY.get(kind, (1, lambda step, job: False))
    places = [place for place, step in enumerate(steps, 1) if shows(step, job)]
    return places[number - 1] if len(places) >= number else len(steps)


def main() -> None:
    """Grade the file named on the command line; ends with its parent."""
    path = Path(sys.argv[1])
    rung = LADDER[path.stem]
    zygote = Zygote(path, rung.arguments)  # before the thread that watches the parent
    watch_parent(lambda: os._exit(1))
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(asdict(find_counterexample(rung, zygote, path.name))))


if __name__ == "__main__":
    main()
