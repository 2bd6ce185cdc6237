"""What a job is: its request, its states, its id, and the strict check of what clients send. No I/O.

Reading tour 1 of 13; next: overload_demo/queue/__init__.py. Look for the bounds that later code relies on. Question:
why are ids random and not counted by the store?
"""

import codecs
import json
import math
import re
import secrets
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetPydanticSchema

from overload_demo.process import after_fork

MAX_DEPTH = 32
MAX_VALUE = 1e15
MAX_EXPIRES_IN_S = 31_536_000  # a year
BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
JOB_ID = re.compile(r"job_[0-9a-f]{24,64}")
ID_LENGTH = 36  # of a job's id without its shard
IDS_AT_ONCE = 256  # asking the system for each id alone took 9 % of a request (profiled)

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def _with_one_error(message: str) -> GetPydanticSchema:
    """Report one error for a union of number types, not one for each of them."""

    def schema(source: Any, handler: GetCoreSchemaHandler) -> Any:
        return {**handler(source), "custom_error_type": "number", "custom_error_message": message}

    return GetPydanticSchema(schema)


Number = Annotated[
    Annotated[int, Field(strict=True, ge=-MAX_VALUE, le=MAX_VALUE)]
    | Annotated[float, Field(strict=True, ge=-MAX_VALUE, le=MAX_VALUE, allow_inf_nan=False)],
    Field(union_mode="left_to_right"),
    _with_one_error(f"Input should be a finite number, at most {MAX_VALUE:g} in size"),
]
Seconds = Annotated[
    Annotated[int, Field(strict=True, gt=0, le=MAX_EXPIRES_IN_S)]
    | Annotated[float, Field(strict=True, gt=0, le=MAX_EXPIRES_IN_S, allow_inf_nan=False)],
    Field(union_mode="left_to_right"),
    _with_one_error(f"Input should be a number of seconds above 0, at most {MAX_EXPIRES_IN_S}"),
]


class JobState(StrEnum):
    """The states of a job: queued → processing → done or failed.

    A job in processing is queued again when it is released or its lease expires. A queued job becomes cancelled at its
    client's request, and failed if it has not started by its deadline.
    """

    QUEUED = "queued"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobRequest(BaseModel):
    """The body of ``POST /jobs``: strict types, finite numbers, |value| ≤ 1e15; unknown fields are ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "my-demo-job", "value": 42, "message": "Hello, World!", "metadata": {"priority": "normal"}}
            ]
        }
    )

    name: str = Field(strict=True, description="the job's name")
    value: Number = Field(description="a finite number, doubled by the demo job; an int stays an int")
    message: str = Field(strict=True, description="free text")
    metadata: dict[str, Any] | None = Field(None, description="any further fields, at most 32 levels deep")
    expires_in_s: Seconds | None = Field(
        None,
        description="seconds within which the job must start; after that a worker fails it without running it. Until a "
        "worker reaches it, it stays queued. A job that was leased before runs again",
    )


_unused_ids: list[str] = []
after_fork(_unused_ids.clear)  # a forked process must not use the same ids


def new_job_id() -> str:
    """Return a fresh id of 128 random bits: it cannot be guessed, and collisions do not occur in practice.

    It exists before the commit, so an enqueue can be repeated, and the job polled after a lost reply.
    """
    while True:
        try:
            return _unused_ids.pop()
        except IndexError:
            bits = secrets.token_hex(16 * IDS_AT_ONCE)
            _unused_ids.extend(f"job_{bits[at : at + 32]}" for at in range(0, len(bits), 32))


def on_shard(job_id: str, shard: int) -> str:
    """Return the id that the same new job has on a shard: three more digits name it, unless it is shard 0.

    So a deployment with one shard has the ids that it always had, and they stay valid when it gets more.
    """
    return job_id[:ID_LENGTH] + (f"{shard:03x}" if shard else "")


def shard_of(job_id: str) -> int:
    """Return the shard that an id names; 0 for an id without its three digits."""
    return int(job_id[ID_LENGTH:], 16) if len(job_id) == ID_LENGTH + 3 else 0


_ALIKE = bytes.maketrans(b"123456789E", b"000000000e")  # all digits, and both letters of an exponent


def is_plainly_strict(body: bytes) -> bool:
    """Whether valid JSON certainly contains nothing that :func:`why_not_strict` refuses; cheap, False proves nothing.

    Searches for words are faster than a pattern.
    """
    alike = body.translate(_ALIKE)
    found = b"NaN" in body or b"Infinity" in body or b"\\u" in body or b"0e" in alike or b"0" * 300 in alike
    return not found and body.count(b"{") + body.count(b"[") <= MAX_DEPTH


def why_not_strict(body: bytes) -> tuple[str, str] | None:
    """Return why a body is refused, as ``(kind, text)``, or None.

    Kind ``json_invalid``: not JSON in UTF-8 (NaN and Infinity are not JSON). Kind ``value_error``: JSON, but with a
    number beyond float range, a lone surrogate, or more than 32 levels.
    """
    if body.startswith(BYTE_ORDER_MARKS):
        return "json_invalid", "the body begins with a byte order mark: send JSON in UTF-8 without one"
    try:
        parsed = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        return "value_error", f"more than {MAX_DEPTH} levels deep"
    except ValueError as error:
        if "integer string conversion" in str(error):
            return "value_error", "a number has too many digits"
        return "json_invalid", f"not valid JSON in UTF-8: {str(error)[:120]}"
    reason = _refused_inside(parsed)
    return ("value_error", reason) if reason else None


def encode_result(result: Any) -> str:
    """Encode a handler's result as JSON, within the limits of a request.

    The limits do not depend on the stack of the process that reads it. Raises ValueError with the reason for a result
    beyond them, and TypeError for one that is not JSON.
    """
    try:
        text = _encode(result)
        reason = why_not_shown(text)
    except RecursionError:
        reason = f"more than {MAX_DEPTH} levels deep"
    if reason:
        raise ValueError(f"the result cannot be stored: {reason}")
    return text


def why_not_shown(text: str) -> str | None:
    """Return why no response can contain a result (JSON text), or None. Raises ValueError for lone surrogates."""
    body = text.encode()
    refused = None if is_plainly_strict(body) else why_not_strict(body)
    return refused[1] if refused else None


_SURROGATE = re.compile("[\ud800-\udfff]")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _refused_inside(value: Any, depth: int = 1) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "a number is beyond the range of a float"
    if isinstance(value, str):
        return "a string holds a lone surrogate" if _SURROGATE.search(value) else None
    if not isinstance(value, dict | list):
        return None
    if depth > MAX_DEPTH:  # also bounds this recursion
        return f"more than {MAX_DEPTH} levels deep"
    children = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return next((reason for child in children if (reason := _refused_inside(child, depth + 1))), None)
