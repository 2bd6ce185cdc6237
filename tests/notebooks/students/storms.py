"""Students of 06."""

from typing import Any

from tests.notebooks.students import Students

RATIO, BURST = 0.1, 10.0


def take(tokens: float, requests: int) -> tuple[bool, float]:
    tokens = min(BURST, tokens + RATIO * requests)
    return (True, tokens - 1) if tokens >= 1 else (False, tokens)


def branching(tokens: float, requests: int) -> tuple[bool, float]:
    tokens += requests / 10
    if tokens > BURST:
        tokens = BURST
    if tokens < 1:
        return False, tokens
    return True, tokens - 1


def always(tokens: float, requests: int) -> tuple[bool, float]:
    return True, tokens - 1


def never(tokens: float, requests: int) -> tuple[bool, float]:
    return False, min(BURST, tokens + RATIO * requests)


def for_free(tokens: float, requests: int) -> tuple[bool, float]:
    return tokens >= 1, min(BURST, tokens + RATIO * requests)


def into_debt(tokens: float, requests: int) -> tuple[bool, float]:
    tokens = min(BURST, tokens + RATIO * requests) - 1
    return tokens >= 0, tokens


def with_a_part(tokens: float, requests: int) -> tuple[bool, float]:
    tokens = min(BURST, tokens + RATIO * requests)
    return (True, tokens - 1) if tokens > 0 else (False, tokens)


def whole_tokens(tokens: float, requests: int) -> tuple[bool, float]:
    tokens = tokens + requests
    return (True, tokens - 1) if tokens >= 1 else (False, tokens)


def afterwards(tokens: float, requests: int) -> tuple[bool, float]:
    earned = RATIO * requests
    return (True, min(BURST, tokens - 1 + earned)) if tokens >= 1 else (False, tokens + earned)


def no_income(tokens: float, requests: int) -> tuple[bool, float]:
    return (True, tokens - 1) if tokens >= 1 else (False, tokens)


def no_lid(tokens: float, requests: int) -> tuple[bool, float]:
    tokens += RATIO * requests
    return (True, tokens - 1) if tokens >= 1 else (False, tokens)


def lid_last(tokens: float, requests: int) -> tuple[bool, float]:
    tokens += RATIO * requests
    return (True, min(BURST, tokens - 1)) if tokens >= 1 else (False, tokens)


def dear(tokens: float, requests: int) -> tuple[bool, float]:
    tokens = min(BURST, tokens + RATIO * requests)
    return (True, tokens - 2) if tokens >= 1 else (False, tokens)


def as_percent(tokens: float, requests: int) -> tuple[bool, float]:
    tokens = min(BURST, tokens + 100 * RATIO * requests)
    return (True, tokens - 1) if tokens >= 1 else (False, tokens)


def silent(tokens: float, requests: int) -> tuple[bool, float] | None:
    tokens = min(BURST, tokens + RATIO * requests)
    if tokens >= 1:
        return True, tokens - 1
    return None


def forgetful(tokens: float, requests: int) -> tuple[bool, float]:
    earned = min(BURST, tokens + RATIO * requests)
    return (True, earned - 1) if earned >= 1 else (False, tokens)


def only_the_answer(tokens: float, requests: int) -> bool:
    return tokens + RATIO * requests >= 1


def swapped(tokens: float, requests: int) -> Any:
    return take(tokens, requests)[::-1]


STUDENTS = [
    Students(
        "06.busy",
        right=["abandoned jobs", "Abandoned jobs "],
        wrong=[
            ("nothing", "as many jobs a second"),
            ("one job again and again", "an id of its own"),
            ("failed jobs", "succeeds"),
            ("new jobs first", "First come"),
        ],
        wrong_type=[(0, "one of"), ("idle", "one of")],
    ),
    Students(
        "06.critical",
        facts={"drain_per_s": 96.0, "retries": 3, "best_per_s": 104.0, "offered_per_s": 40},
        right=[24.0, 23.5],
        wrong=[
            (96, "without any retry"),
            (32, "the first attempt"),
            (384, "not more"),
            (0.25, "the share"),
            (72, "would take"),
            (26, "the best case"),
            (40, "in this run"),
            (10, "not on what arrives"),
        ],
        wrong_type=[("24", "without quotes"), ("24/s", "without quotes")],
    ),
    Students(
        "06.slow",
        facts={"too_many": 168.0, "arrival_per_s": 18.0, "drain_per_s": 100.0, "retries": 3}
        | {"measured_per_s": 88.0, "waiting": 268},
        right=[6.0],
        wrong=[
            (10.5, "the real stack"),
            (1.68, "still arrive"),
            (2.05, "new requests only"),
            (3.652, "a first attempt"),
            (2.333, "to *fill*"),
            (9.57, "may still wait"),
            (-6, "The sign"),
        ],
        wrong_type=[("6 s", "without quotes"), ((6, 0), "decimal point")],
    ),
    Students(
        "06.slow",
        facts={"too_many": 300.0, "arrival_per_s": 10.0, "drain_per_s": 100.0, "retries": 3}
        | {"measured_per_s": 30.0, "waiting": 400},
        right=[5.0],
        wrong=[(7.5, "to *fill*"), (3.0, "still arrive"), (3.333, "new requests only")],
        wrong_type=[([5.0], "a number")],
    ),
    Students(
        "06.backoff",
        right=["as many attempts"],
        wrong=[
            ("waits too short", "later"),
            ("all at one moment", "Jitter removes"),
            ("too few retries", "one more job"),
            ("worker too slow", "keeps up"),
        ],
        wrong_type=[(4, "one of"), ("jitter", "one of")],
    ),
    Students(
        "06.bucket",
        facts={"ratio": RATIO, "burst": BURST},
        right=[take, branching],
        wrong=[
            (always, "bucket is empty"),
            (never, "refuses it"),
            (for_free, "cost nothing: it takes"),
            (into_debt, "goes down to -1"),
            (with_a_part, "Half a token"),
            (whole_tokens, "a whole token"),
            (afterwards, "only after the decision"),
            (no_income, "earn is missing"),
            (no_lid, "a long calm"),
            (lid_last, "stays full"),
            (dear, "goes from 5 to 3"),
            (as_percent, "of a token"),
            (silent, "returns nothing"),
            (forgetful, "what the requests earned stays"),
            (only_the_answer, "two values"),
            (swapped, "other way round"),
        ],
        wrong_type=[(0.1, "a function, called like take(10, 0)"), (lambda tokens: (True, 0.0), "TypeError")],
        unfinished=[lambda tokens, requests: ...],
    ),
    Students(
        "06.deadline",
        facts={"timeout_s": 1.0, "rest_s": 0.2},
        right=[0.6, 0.75, 0.3],
        wrong=[(0, "no job at all"), (1.0, "the last moment"), (5, "have given up"), (0.05, "an ordinary day")],
        wrong_type=[("0.6", "without quotes"), ((0, 6), "decimal point")],
    ),
]
