"""For any return value of a handler, the API can show the job: done with its result, or failed with the reason."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from overload_demo.jobs import MAX_DEPTH, encode_result
from overload_demo.store.connect import Store
from tests.support.running import make_settings, serving_api, submit, wait_for, working
from tests.support.stores import Rest

HANDLER = """
def nested(depth):
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value

def in_a_tuple(depth):
    value = ()
    for _ in range(depth - 1):
        value = {"a": (value,)} if _ % 2 else (value,)
    return value

RESULTS = [nested(32), nested(33), nested(960), nested(975), nested(100_000), in_a_tuple(40), "\\ud800", {"\\udfff": 1},
           {"text": "\\U0001f600"}, [[], [], [[]]] * 30, 10**5000, float("inf"), {1, 2}]

def handle(payload):
    return RESULTS[payload["value"]]
"""
DEEP = "ValueError: the result cannot be stored: more than 32 levels deep"
LONE = "ValueError: the result cannot be stored: a string holds a lone surrogate"
# The reason why each of RESULTS fails; None = it does not.
REASONS = [None, DEEP, DEEP, DEEP, DEEP, DEEP, LONE, LONE, None, None, "ValueError: ", "ValueError: ", "TypeError: "]


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_a_result_that_json_cannot_hold_fails_its_job_with_the_reason(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_results.py").write_text(HANDLER)
    monkeypatch.syspath_prepend(tmp_path)
    settings = make_settings(tmp_path, worker_handler="odd_results:handle")
    with serving_api(settings, store) as client, working(settings, store):
        ids = submit(client, len(REASONS))
        for job_id, reason in zip(ids, REASONS, strict=True):
            wait_for(client, [job_id], "failed" if reason else "done")
            shown = client.get(f"/jobs/{job_id}").json()
            assert shown.get("error", "").startswith(reason or "")
            json.dumps(shown).encode()
        stats = client.get("/queue/stats").json()
    assert (stats["done"], stats["failed"]) == (REASONS.count(None), len(REASONS) - REASONS.count(None))


BEYOND_FLOAT = ["1e999", "7E999", "1234567890" * 31 + ".5", "9" * 5000]


@pytest.mark.parametrize(
    "stored", [nested(33), nested(960), nested(975), nested(100_000), '"\\ud800"', *BEYOND_FLOAT, "[" * 20]
)
def test_a_stored_result_of_another_writer_is_never_a_500(tmp_path: Path, store: Store, stored: str) -> None:
    settings = make_settings(tmp_path)
    with serving_api(settings, store) as client:
        key = f"{settings.overload_key_prefix}job:"
        [job_id, other] = submit(client, 2)
        Rest.to(store).run("HSET", f"{key}{job_id}", "status", "done", "result", stored)

        assert shown(client, job_id) == {"status": "failed", "error": "unreadable: the stored job is malformed"}
        assert shown(client, other)["status"] == "queued"


def shown(client: httpx.Client, job_id: str) -> dict[str, Any]:
    answer = client.get(f"/jobs/{job_id}")
    assert answer.status_code == 200, answer.text
    return {name: value for name, value in answer.json().items() if name in {"status", "error"}}


def test_the_bound_does_not_depend_on_the_stack() -> None:
    def below(frames: int, value: Any) -> str:
        if frames:
            return below(frames - 1, value)
        with pytest.raises(ValueError, match=f"more than {MAX_DEPTH} levels deep"):
            encode_result(value)
        return encode_result(json.loads(nested(MAX_DEPTH)))

    for depth in (MAX_DEPTH + 1, 500, 900):
        assert below(0, json.loads(nested(depth))) == below(500, json.loads(nested(depth))) == nested(MAX_DEPTH)
