"""Exercises of notebook 00: the first job, the promise of a 202, and the first limit of this machine."""

from overload_demo.course.exercise import choice, exercise, multiple_choice, shown
from overload_demo.jobs import JobState
from overload_demo.lab.job_log import JobLife
from overload_demo.lab.preflight import Preflight

multiple_choice(
    "00.accepted",
    "stored",
    {
        "done": "Then the client would have waited for the work. In the figure the work comes after the 202.",
        "started": "All workers may be busy, or there may be none. The 202 does not wait for a worker.",
        "received": "More than that: a job that is only received is lost in a power failure. It is written down first.",
    },
    "Look at the figure again: where does the time line begin, and what has happened by then?",
)


@exercise("00.first_job", 'The whole call is (await client.get(f"/jobs/{job_id}")).json()')
def _first_job(answer: object, *, stored: JobLife | None) -> str:
    """The JSON of ``GET /jobs/{job_id}`` for a job that is done; ``stored`` is what the store holds of the job."""
    if not isinstance(answer, dict):
        return _not_json(answer)
    if answer.get("status") == "accepted":
        return "This is the receipt of the POST: it confirms that the job is stored. Ask for the result with a GET."
    if "job_id" not in answer:
        return f"The API sent no job, but {shown(answer)}. In the address, text with {{job_id}} needs an f before it."
    if stored is None:
        return f"The store has no job {shown(answer.get('job_id'))}. Is it the id from the receipt?"
    if answer.get("status") != stored.status:
        return f"Your status is {shown(answer.get('status'))}, that in the store is {stored.status.value!r}: ask again."
    if stored.status != JobState.DONE:
        return f"The job is {stored.status.value}, not done: ask again in a moment."
    value = answer.get("result")
    for name in ("input_echo", "processed_value"):
        value = value.get(name) if isinstance(value, dict) else None
    if value == 2 * stored.payload["value"]:
        return ""
    return f"The result of {stored.payload['value']} should be its double; your answer holds {shown(value)}."


def _not_json(answer: object) -> str:
    if type(answer).__name__ == "Response":
        return "This is the whole response. The method .json() returns its content as a dictionary."
    if type(answer).__name__ in ("coroutine", "method", "function"):
        return "The call has not been made: a request must be awaited, and .json() has parentheses."
    if isinstance(answer, str):
        return "An id or a text is not the API's answer: hand in the JSON of the answer."
    return f"The answer is the JSON that the API sent, a dictionary, not {shown(answer)}."


@exercise(
    "00.limit",
    "Look at the table: which row allows the fewest sockets to one process?",
    "Descriptors, ports and memory each allow a number of sockets. A growing crowd meets the smallest first.",
)
def _limit(answer: object, *, report: Preflight) -> str:
    sockets, right = report.sockets_by_limit(), report.first_limit()
    hints: dict[str, str] = {
        "descriptors": f"The descriptors suffice for {sockets['descriptors']:,} sockets. Another limit comes first.",
        "ports": f"The ports suffice for {sockets['ports']:,} connections to one server. Another limit comes first.",
        "memory": f"The memory suffices for {sockets['memory']:,} sockets of 25 KB. Another limit comes first.",
        "cores": "Sockets that wait use no core. What does each open socket use up?",
    }
    return choice(answer, right, {name: hint for name, hint in hints.items() if name != right})
