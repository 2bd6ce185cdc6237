"""Measured numbers as text, without digits that a second measurement would not repeat."""

TIMES = 2.0  # chosen: from here on a factor is easier to read than a percentage


def about(number: float) -> str:
    """Return a number with about three digits: 12,695, 84.2, 1.63, 0.0078. A whole number keeps all of its digits."""
    if abs(number) >= 100 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.3g}"


def duration(seconds: float) -> str:
    """Return a time with about two digits: in milliseconds below a second, then in seconds."""
    if seconds >= 0.9995:
        return f"{seconds:,.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.2g} ms"


def off_by(guess: float, measured: float) -> str:
    """Return the error of a prediction: in percent of the measured value, or as a factor where it is above 2."""
    if not measured:
        return "-"
    ratio = guess / measured
    if ratio > TIMES:
        return f"{ratio:.2g} times too high" if ratio < 10 else f"{ratio:,.0f} times too high"
    if 0 < ratio < 1 / TIMES:
        return f"{1 / ratio:.2g} times too low" if ratio > 0.1 else f"{1 / ratio:,.0f} times too low"
    return f"{ratio - 1:+.0%}".replace("%", " %")
