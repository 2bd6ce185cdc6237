"""The HTML around the panels: the same for the page and the notebook."""

from collections.abc import Mapping
from types import MappingProxyType

from overload_demo.live.samples import NOT_KNOWN, NOTHING_YET, NUMBERS

_HEADER = """
<header>
<h1 data-state="title"></h1> <span class="badge" data-state="badge"></span>
<p data-state="status" role="status"></p>
<span class="silence">no signal</span>
<button type="button" data-pause aria-pressed="false">Pause</button>
</header>
"""
_RESULT = '<p class="result" data-state="result" aria-live="polite"></p>'
_PANEL = '<figure role="img" data-panel="{name}" aria-label="{label}"><div inert></div></figure>'


def live_view(buttons: Mapping[str, str] = MappingProxyType({})) -> str:
    """Header, numbers, panels, controls if there are any, and the numbers once more as a table."""
    numbers = "".join(
        f'<div><dt>{label}</dt><dd data-number="{name}">{NOT_KNOWN}</dd></div>' for name, (label, _) in NUMBERS.items()
    )
    rows = "".join(
        f'<tr><th scope="row">{label}</th><td data-number="{name}">{NOT_KNOWN}</td></tr>'
        for name, (label, _) in NUMBERS.items()
    )
    figures = "\n".join(_PANEL.format(name=name, label=label) for name, label in NOTHING_YET.items())
    table = f"<details><summary>The numbers as a table</summary><table>{rows}</table></details>"
    return f'{_HEADER}<dl class="numbers">{numbers}</dl>\n{_RESULT}\n{figures}\n{_controls(buttons)}\n{table}'


def _controls(buttons: Mapping[str, str]) -> str:
    """A form with the class's two numbers and a button for each order; empty without orders. Hidden until a token."""
    if not buttons:
        return ""
    fields = (
        '<label>peak, jobs <input name="peak" type="number" min="0"></label>'
        '<label>empty, s <input name="empty_s" type="number" min="0" step="any"></label>'
    )
    pressed = "".join(f'<button type="button" data-do="{name}">{label}</button>' for name, label in buttons.items())
    return f'<form hidden aria-label="Controls">{fields}{pressed}</form>'
