"""What a job is: its request, its states, its ids, and the strict reading of what clients send. No I/O."""

import codecs
import json
import math
import os
import re
import secrets
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetPydanticSchema

MAX_DEPTH = 32
BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_VALUE = 1e15
MAX_EXPIRES_IN_S = 31_536_000  # a year
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
JOB_ID = re.compile(r"job_[0-9a-f]{24,64}")


def _with_one_error(message: str) -> GetPydanticSchema:
    """Say once what a number must be, not once for each branch of the union."""

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
    """queued → processing → done or failed; processing → queued again when released or when its lease expires.

    queued → cancelled by its client, and queued → failed when it has not started by its deadline.
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

    name: str = Field(strict=True, description="what to call the job")
    value: Number = Field(description="a finite number, doubled by the demo job; an int stays an int")
    message: str = Field(strict=True, description="free text")
    metadata: dict[str, Any] | None = Field(None, description="anything else, at most 32 levels deep")
    expires_in_s: Seconds | None = Field(
        None,
        description="seconds within which the job must start; else a worker that reaches it fails it, without running "
        "it. Until then it stays queued. A job that was interrupted has started, and is run again",
    )


def new_job_id() -> str:
    """A fresh id, 128 random bits of the system's: ids cannot be guessed and never collide in practice."""
    while True:
        try:
            return _unused_ids.pop()
        except IndexError:
            bits = secrets.token_hex(16 * IDS_AT_ONCE)
            _unused_ids.extend(f"job_{bits[at : at + 32]}" for at in range(0, len(bits), 32))


# Asking the system for each id alone was 9 % of what a profiler saw of a request.
IDS_AT_ONCE = 256
_unused_ids: list[str] = []
if hasattr(os, "register_at_fork"):  # a forked process would give out the same ids; Windows does not fork
    os.register_at_fork(after_in_child=_unused_ids.clear)


# Whatever could hide a number, string or depth the plain JSON grammar allows but we refuse; a body without any of
# these needs no closer look. Words are found faster one by one than by the pattern.
_SUSPICIOUS_NUMBER = re.compile(rb"[0-9](?:[eE]|[0-9]{299})")


def is_plainly_strict(body: bytes) -> bool:
    """Whether a body that is valid JSON can hold nothing that :func:`why_not_strict` refuses; cheap, may say no."""
    return (
        not (b"NaN" in body or b"Infinity" in body or b"\\u" in body)
        and _SUSPICIOUS_NUMBER.search(body) is None
        and body.count(b"{") + body.count(b"[") <= MAX_DEPTH
    )


def why_not_strict(body: bytes) -> tuple[str, str] | None:
    """Why a body is refused anywhere in it, as ``(kind, text)``, or None.

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
    """Encode what a handler returned as JSON, within the bounds of a request.

    The bounds do not depend on the stack of the process that reads it. Raises ValueError with the reason if it is
    beyond them, and TypeError if it is no JSON.
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
    """Why no answer can hold a result, given as JSON text; None = it can. Raises ValueError for lone surrogates."""
    body = text.encode()
    refused = None if is_plainly_strict(body) else why_not_strict(body)
    return refused[1] if refused else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _refused_inside(value: Any, depth: int = 1) -> str | None:
    """Recursion is bounded by the depth it refuses."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a number is beyond the range of a float"
    if isinstance(value, str):
        return None if _is_unicode(value) else "a string holds a lone surrogate"
    if not isinstance(value, dict | list):
        return None
    if depth > MAX_DEPTH:
        return f"more than {MAX_DEPTH} levels deep"
    children = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return next((reason for child in children if (reason := _refused_inside(child, depth + 1))), None)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
