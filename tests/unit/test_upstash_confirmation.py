"""A script that replicas must confirm: what the client sends, repeats and reports."""

import pytest

from overload_demo.errors import Outcome, StoreError, StoreFullError, StoreUnavailableError
from overload_demo.rest import Confirmation, Script, ScriptCall
from tests.support import hostile as h

pytestmark = pytest.mark.anyio

CALL = ScriptCall(Script("probe", "return 1"), ["k"], ["a"])
TWO = Confirmation(2, ScriptCall(Script("touch", "touch"), ["t"], []))
UNKNOWN = {"error": "NOSCRIPT No matching script."}


def replies(script: object, touch: object, confirmed: object) -> h.Script:
    items = [one if isinstance(one, dict) else {"result": one} for one in (script, touch, confirmed)]
    return h.answer(200, items)


async def test_the_script_is_followed_by_a_write_and_a_wait_within_the_deadline() -> None:
    async with h.hostile(replies("ok", None, 2)) as server, h.client_of(server.address) as store:
        assert await store.run(CALL, deadline_s=0.5, confirmation=TWO) == "ok"

        (request,) = server.requests
        assert request.path == "/pipeline"
        assert request.body == [
            ["EVALSHA", CALL.script.sha, 1, "k", "a"],
            ["EVAL", "touch", 1, "t"],
            ["WAIT", 2, 250],
        ]


async def test_more_replicas_than_wanted_are_enough() -> None:
    async with h.hostile(replies("ok", None, 3)) as server, h.client_of(server.address) as store:
        assert await store.run(CALL, confirmation=TWO) == "ok"


async def test_an_exchange_without_enough_replicas_is_repeated() -> None:
    too_few = replies("ok", None, 1)
    async with h.hostile(too_few, too_few, replies("ok", None, 2)) as server, h.client_of(server.address) as store:
        assert await store.run(CALL, deadline_s=10.0, confirmation=TWO) == "ok"

        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (replies("ok", None, 1), "replicas that have the write: 1, not 2"),
        (replies("ok", {"error": "NOREPLICAS Not enough good replicas to write."}, 2), "NOREPLICAS"),
        (replies("ok", None, {"error": "UNBLOCKED force unblock from blocking operation"}), "UNBLOCKED"),
        (replies("ok", None, None), "None, not 2"),
        (replies("ok", None, "2"), "2, not 2"),
        (h.answer(200, [{"result": "ok"}]), "unexpected form"),
    ],
    ids=["one", "no write", "unblocked", "null", "text", "short"],
)
async def test_a_missing_confirmation_leaves_the_outcome_unknown(reply: h.Script, reason: str) -> None:
    async with h.hostile(reply) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreUnavailableError, match=reason) as caught:
            await store.run(CALL, deadline_s=0.2, confirmation=TWO)

        assert caught.value.outcome is Outcome.UNKNOWN


async def test_the_reason_stays_when_the_last_attempt_ends_at_the_deadline() -> None:
    async with h.hostile(replies("ok", None, 0), h.stay_silent) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreUnavailableError, match="have the write: 0, not 2; the store did not answer in time"):
            await store.run(CALL, deadline_s=0.3, confirmation=TWO)


@pytest.mark.parametrize("text", ["NOREPLICAS Not enough good replicas to write.", "READONLY You can't write"])
async def test_a_script_that_was_refused_is_not_enqueued(text: str) -> None:
    refused = replies({"error": text}, {"error": text}, 0)
    async with h.hostile(refused) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreUnavailableError) as caught:
            await store.run(CALL, deadline_s=0.2, confirmation=TWO)

        assert caught.value.outcome is Outcome.NOT_ENQUEUED
        assert len(server.requests) > 1


async def test_a_refusal_after_a_missing_confirmation_stays_unknown() -> None:
    refused = replies({"error": "NOREPLICAS Not enough good replicas to write."}, None, 0)
    async with h.hostile(replies("ok", None, 0), refused) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreError) as caught:
            await store.run(CALL, deadline_s=0.3, confirmation=TWO)

        assert caught.value.outcome is Outcome.UNKNOWN


async def test_a_full_store_is_reported_without_a_repeat() -> None:
    full = replies({"error": "OOM command not allowed when used memory > 'maxmemory'."}, None, 2)
    async with h.hostile(full) as server, h.client_of(server.address) as store:
        with pytest.raises(StoreFullError):
            await store.run(CALL, deadline_s=5.0, confirmation=TWO)

        assert len(server.requests) == 1


async def test_an_unknown_script_is_sent_as_text_and_confirmed_too() -> None:
    scripts = [replies(UNKNOWN, None, 2), replies("ok", None, 1), replies("ok", None, 2)]
    async with h.hostile(*scripts) as server, h.client_of(server.address) as store:
        assert await store.run(CALL, deadline_s=10.0, confirmation=TWO) == "ok"

        assert [request.body[0][0] for request in server.requests] == ["EVALSHA", "EVAL", "EVAL"]
