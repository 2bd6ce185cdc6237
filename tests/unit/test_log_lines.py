"""Log lines: the text of a handler's error cannot imitate another line, and its traceback appears once a minute."""

import asyncio
import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from overload_demo.console import MAX_TRACEBACK, JsonFormatter, TextFormatter
from overload_demo.queue.consumer import LeasedJob
from overload_demo.worker import journal
from overload_demo.worker.journal import MAX_DISTINCT_ERRORS, FailureLog

JOB = LeasedJob("job_1", "{}", 1, "f", "")
FORGED = "no\n2026-01-01 00:00:00,000 1 INFO all is well\r\x1b[2J\x9b2J\u2028\x85end"
TEXT = TextFormatter("%(asctime)s %(levelname)s %(message)s")


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def record_of(message: str, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("name", logging.ERROR, "", 0, "%s", (message,), exc_info)


def test_a_message_with_line_breaks_and_control_characters_is_one_line() -> None:
    text = TEXT.format(record_of(FORGED))

    assert text.isprintable()
    assert r"no\n2026-01-01" in text
    assert r"\r\x1b[2J\x9b2J\u2028\x85end" in text
    assert "\n" not in JsonFormatter().format(record_of(FORGED))


def test_no_line_of_a_traceback_looks_like_a_log_line() -> None:
    text = TEXT.format(record_of("failed", raised(ValueError(FORGED))))

    first, *rest = text.split("\n")
    assert "2026-01-01" not in first
    assert len(rest) > 3
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_a_traceback_has_causes_and_members_of_a_group_and_a_bounded_length() -> None:
    group = ExceptionGroup("both", [raised(KeyError("left")), raised(OSError("right"))])
    error = raised(RuntimeError("on top"), cause=raised(group))

    text = TEXT.format(record_of("failed", error))
    long = TEXT.format(record_of("failed", raised(ValueError("x" * 10_000_000))))

    assert all(one in text for one in ("KeyError: 'left'", "OSError: right", "RuntimeError: on top", "direct cause"))
    assert len(long) < 2 * MAX_TRACEBACK


class UntellableMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__qualname__":
            raise SystemExit("not even that")
        return super().__getattribute__(name)


class UntellableError(Exception, metaclass=UntellableMeta):
    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(f"no {name}")


def test_an_error_whose_name_cannot_be_read_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    FailureLog().write(JOB, raised(UntellableError()))

    assert caplog.records[0].exc_text == "the traceback cannot be formatted"


def test_each_distinct_error_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    failures = FailureLog()

    def fail(error: BaseException) -> None:
        failures.write(JOB, raised(error))

    for _ in range(3):
        fail(ValueError("one"))
        fail(KeyError("another type"))
    now[0] += 61.0
    fail(ValueError("one"))

    last_lines = [record.exc_text.splitlines()[-1] for record in caplog.records if record.exc_text]
    assert last_lines == ["ValueError: one", "KeyError: 'another type'", "ValueError: one"]
    assert all((record.__dict__["job_id"], record.__dict__["attempt"]) == ("job_1", 1) for record in caplog.records)


def test_many_distinct_errors_are_bounded_in_log_and_memory(caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog()
    for number in range(3 * MAX_DISTINCT_ERRORS):
        failures.write(JOB, raised(type(f"Error{number}", (Exception,), {})()))

    assert len(caplog.records) == len(failures._logged_at) == MAX_DISTINCT_ERRORS


def test_the_place_of_a_timeout_is_in_the_users_code(caplog: pytest.LogCaptureFixture) -> None:
    async def slow() -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(1)

    with pytest.raises(TimeoutError) as caught:
        asyncio.run(slow())

    assert "raised at test_log_lines.py:" in journal.describe(caught.value)
    assert "in slow" in journal.describe(caught.value)


def test_uvicorns_lines_and_warnings_are_json_too(tmp_path: Any) -> None:
    """They reach the root logger: the servers of API, gateway and live page configure no logging."""
    code = """
import logging, sys, warnings
from overload_demo.console import log_to_stderr
from overload_demo.config import load_settings
log_to_stderr("json")
from fastapi import FastAPI
from overload_demo.api.api_metrics import ApiMetrics
from overload_demo.api.front_door.gate import Server
from overload_demo.live.feed import Feed
from overload_demo.live.page import Page
app = FastAPI()
app.state.metrics = ApiMetrics()
Server(app, load_settings())
with Page(Feed()):
    pass
logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
warnings.warn("a warning")
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    lines = [json.loads(line) for line in outcome.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["uvicorn.error", "py.warnings"]
