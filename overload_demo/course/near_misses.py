"""Name the usual slip behind a number that is off by a round factor, by its sign, or by rounding."""

import math

_FACTORS = {
    10: "count the zeros",
    60: "are these minutes?",
    100: "a share and its percent differ by this factor",
    1000: "look at the units, such as s and ms",
    3600: "are these hours?",
}
_AS_GOOD_AS_EQUAL = 0.005  # chosen: answers with three digits


def near_miss(value: float, right: float) -> str:
    """Return a hint at the slip that makes ``value`` of ``right``, or ""."""
    if right and math.isclose(value, -right, rel_tol=_AS_GOOD_AS_EQUAL):
        return "The sign is wrong: which of the two that are subtracted is larger?"
    for factor, reason in _FACTORS.items():
        if math.isclose(value, right * factor, rel_tol=_AS_GOOD_AS_EQUAL):
            return f"{value:,.6g} is {factor:,} times too large: {reason}."
        if math.isclose(value * factor, right, rel_tol=_AS_GOOD_AS_EQUAL):
            return f"{value:,.6g} is {factor:,} times too small: {reason}."
    if value == math.floor(value) and abs(value - right) < 1:
        return f"{value:,.6g} is rounded too much: do not round, or give three digits."
    return ""
