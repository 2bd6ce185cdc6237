"""Strict JSON: the fast check accepts no body that the strict check refuses."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from overload_demo.jobs import JOB_ID, JobRequest, is_plainly_strict, new_job_id, why_not_strict
from tests.support.running import JOB

METADATA = {"a": [1, 2.5, None, "\u00e4\n"], "b": {"c": True}}
SAMPLE = json.dumps(JOB | {"metadata": METADATA, "more": "x"}, ensure_ascii=False).encode()
PIECES = [
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"1E5",
    b"\\ud800",
    b"\\uD83D\\uDE00",
    b"\\u00e4",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\x00",
    b"\x01",
    b"\n",
    b"\t",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"\\",
    b"/",
    b",",
    b":",
    b"0",
    b"-0",
    b"01",
    b"1.",
    b".5",
    b"9" * 20,
    b"9" * 310,
    b"true",
    b"null",
    b"'",
    b"/*x*/",
    b"[" * 40,
    b"\\x41",
    b"\\u12",
    b"+1",
    b"\xc3",
    b"\xe2\x80\xa8",
]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """The sample with a few pieces inserted or replaced."""
    body = SAMPLE
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        cut = draw(st.integers(0, 4))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=3))
        body = body[:at] + piece + body[at + cut :]
    return body


def is_plainly_valid(body: bytes) -> bool:
    if not is_plainly_strict(body):
        return False
    try:
        JobRequest.__pydantic_validator__.validate_json(body)
    except ValidationError:
        return False
    return True


@settings(max_examples=500, deadline=None)
@given(bodies())
@example(SAMPLE)
@example(SAMPLE.replace(b"2.5", b"NaN"))
@example(SAMPLE.replace(b"2.5", b"-Infinity"))
@example(SAMPLE.replace(b"2.5", b"1e999"))
@example(SAMPLE.replace(b"2.5", b"7E999"))
@example(SAMPLE.replace(b"2.5", b"9" * 400))
@example(SAMPLE.replace(b"2.5", b'"\\udc00"'))
@example(SAMPLE.replace(b"2.5", b"[" * 40 + b"]" * 40))
def test_the_fast_check_accepts_no_body_that_the_strict_check_refuses(body: bytes) -> None:
    if is_plainly_valid(body):
        assert why_not_strict(body) is None
        JobRequest.model_validate(json.loads(body.decode()))


def test_an_ordinary_body_passes_the_fast_check() -> None:
    assert is_plainly_valid(SAMPLE)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "json_invalid"),
        (b"{", "json_invalid"),
        (b"NaN", "json_invalid"),
        (b'{"a": [Infinity]}', "json_invalid"),
        (b'{"a": -Infinity}', "json_invalid"),
        (b"\xef\xbb\xbf{}", "json_invalid"),
        ("{}".encode("utf-16"), "json_invalid"),
        (b'"\xff"', "json_invalid"),
        (b"1e999", "value_error"),
        (b"[-1e999]", "value_error"),
        (b'"\\ud800"', "value_error"),
        (b'{"\\udfff": 1}', "value_error"),
        (nested(33), "value_error"),
        (nested(1000), "value_error"),
        (nested(100_000), "value_error"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "value_error"),
        (b"9" * 5000, "value_error"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_refused_value_anywhere_in_a_body(body: bytes, kind: str) -> None:
    refused = why_not_strict(body)

    assert refused is not None
    assert refused[0] == kind


@pytest.mark.parametrize("body", [nested(32), b'"\\ud83d\\ude00"', b"1e308", b"-0", b"[]", SAMPLE, b'"\\u0000"'])
def test_accepted_bodies(body: bytes) -> None:
    assert why_not_strict(body) is None


@pytest.mark.parametrize("value", [0, -1, 42, 10**15, -(10**15), 1.5, 1e15, -0.0, 1e-300])
def test_a_number_keeps_its_type(value: float) -> None:
    job = JobRequest.model_validate(JOB | {"value": value})

    assert (job.value, type(job.value)) == (value, type(value))


@pytest.mark.parametrize("value", [True, False, "42", None, [], {}, 10**15 + 1, 1e15 + 1, float("inf"), float("nan")])
def test_a_value_that_is_not_a_number_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        JobRequest.model_validate(JOB | {"value": value})


def test_ids_are_long_random_and_of_the_documented_form() -> None:
    ids = {new_job_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(JOB_ID.fullmatch(one) and len(one) >= 4 + 24 for one in ids)
