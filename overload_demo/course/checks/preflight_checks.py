"""Exercises of the notebook 00: the first job, the first limit, what a 202 says."""

from overload_demo.course.exercise import choice, exercise, shown
from overload_demo.jobs import JobState
from overload_demo.lab.job_timeline import JobLife
from overload_demo.lab.preflight import Preflight

_ASK = '(await client.get(f"/jobs/{job_id}")).json()'


@exercise("00.first_job", f"The whole call is {_ASK}")
def first_job(answer: object, *, stored: JobLife | None) -> str:
    """The JSON that ``GET /jobs/{job_id}`` gives for a job that is done; ``stored`` is what the store keeps of it."""
    if not isinstance(answer, dict):
        return _not_json(answer)
    if answer.get("status") == "accepted":
        return "This is the receipt of the POST: it says that the job is stored. Ask what became of it, with a GET."
    if stored is None:
        return f"The store knows no job {shown(answer.get('job_id'))}. Is it the id from the receipt?"
    if answer.get("status") != stored.status:
        return f"You say {shown(answer.get('status'))}, the store says {stored.status.value!r}: ask again."
    if stored.status != JobState.DONE:
        return f"The job is {stored.status.value}, not done: ask again in a moment."
    return _doubled(answer.get("result"), stored)


def _not_json(answer: object) -> str:
    if type(answer).__name__ == "Response":
        return "This is the whole response. Its content as a dictionary is what .json() returns."
    if type(answer).__name__ in ("coroutine", "method", "function"):
        return "The call has not been made: a request is awaited, and .json() has parentheses."
    if isinstance(answer, str):
        return "An id or a text is not what the API answered: hand in the JSON of the answer."
    return f"The answer is the JSON the API sent, a dictionary, not {shown(answer)}."


def _doubled(result: object, stored: JobLife) -> str:
    echo = result.get("input_echo") if isinstance(result, dict) else None
    value = echo.get("processed_value") if isinstance(echo, dict) else None
    if value == 2 * stored.payload["value"]:
        return ""
    return f"The result of {stored.payload['value']} should be its double; your answer holds {shown(value)}."


@exercise(
    "00.limit",
    "Look at the table: which row allows the fewest sockets to one process?",
    "Descriptors, ports and memory each allow a number of sockets. A growing crowd meets the smallest first.",
)
def limit(answer: object, *, report: Preflight) -> str:
    """The limit that 100,000 sockets in one process meet first on this machine."""
    sockets, right = report.sockets_by_limit(), report.first_limit()
    hints: dict[str, str] = {
        "descriptors": f"The descriptors do for {sockets['descriptors']:,} sockets. Something else ends earlier.",
        "ports": f"The ports do for {sockets['ports']:,} connections to one server. Something else ends earlier.",
        "memory": f"The memory does for {sockets['memory']:,} sockets of 25 KB. Something else ends earlier.",
        "cores": "Sockets that wait take no core. What does each open socket use up?",
    }
    return choice(answer, right, {name: hint for name, hint in hints.items() if name != right})


@exercise("00.accepted", "Look at the figure again: where does the time line begin, and what has happened by then?")
def accepted(answer: object) -> str:
    """What is known when a 202 arrives."""
    others = {
        "done": "Then the client would have waited for the work. In the figure the work comes after the 202.",
        "started": "A worker may be busy, or there may be none. The 202 does not wait for one.",
        "received": "More than that: a job only received would be lost when the power goes. It is written down first.",
    }
    return choice(answer, "stored", others)
