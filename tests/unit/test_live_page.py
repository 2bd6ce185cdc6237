"""The page over HTTP: its files, its orders and its stream of events."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.live.feed import Feed, LiveSample
from overload_demo.live.page import ASSETS, POLICY, Page
from tests.support.stages import Staged, on_stage
from tests.support.waiting import wait_until

PATHS = ("", "live.js", "page.js", "live.css", "panels.json")
SAMPLE = LiveSample("queue", 1.0, 100, 0, 50, 0.5, 50)


@pytest.fixture
def feed() -> Feed:
    """A feed with one sample in it."""
    one = Feed(title="a title")
    one.add(SAMPLE)
    return one


@pytest.fixture
def client(feed: Feed) -> Iterator[httpx.Client]:
    """A client of its page, which only shows."""
    with Page(feed) as page, httpx.Client(base_url=page.address, trust_env=False) as one:
        yield one


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Staged]:
    """A stage whose stack does not run."""
    with on_stage(tmp_path, is_running=False) as staged:
        yield staged


def order(stage: Staged, name: str, token: bytes | None = None, **prediction: Any) -> httpx.Response:
    """Send an order, by default with the token of the address."""
    url, _, own = stage.address.partition("#")
    headers = {b"X-Control-Token": own.encode() if token is None else token}
    return httpx.post(f"{url}control/{name}", headers=headers, json=prediction, trust_env=False)


def events(stream: httpx.Response) -> Iterator[dict[str, Any]]:
    """The messages of an event stream."""
    for line in stream.iter_lines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))


def test_the_document_loads_from_its_own_origin_only(client: httpx.Client) -> None:
    answer = client.get("/")

    assert answer.headers["content-security-policy"] == POLICY
    assert "default-src 'none'" in POLICY and "script-src 'self';" in POLICY and "connect-src 'self'" in POLICY
    inline = re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|javascript:", answer.text)
    assert inline == [], "a strict policy allows none, and none is needed"


@pytest.mark.parametrize("path", PATHS)
def test_no_file_names_another_origin(client: httpx.Client, path: str) -> None:
    text = client.get(f"/{path}").text

    assert re.findall(r"[a-z]+://[^\s\"']+|url\(|@import", text) == []
    assert re.findall(r"(?:src|href)=\"/", text) == [], "addresses are relative: it works behind a path"


def test_every_file_the_document_names_is_served_and_nothing_else(client: httpx.Client) -> None:
    named = set(re.findall(r"(?:src|href)=\"([^\":]+)\"", client.get("/").text))

    assert named <= ASSETS.keys()
    assert {client.get(f"/{name}").status_code for name in ASSETS} == {200}
    for path in ("index.html", "nothing.js", "..%2Fpage.py", "%2e%2e/page.py", "openapi.json", "docs"):
        assert client.get(f"/{path}").status_code == 404, path
    assert client.get("/live.js").headers["x-content-type-options"] == "nosniff"


def test_a_stream_begins_with_a_snapshot_and_continues_with_each_message(feed: Feed, client: httpx.Client) -> None:
    with client.stream("GET", "/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        messages = events(stream)
        first = next(messages)
        feed.mark("worker killed", 2.0)
        feed.add(SAMPLE)
        later = [next(messages), next(messages)]

    assert first["kind"] == "snapshot"
    assert [sample["accepted"] for sample in first["data"]["samples"]] == [100]
    assert [message["kind"] for message in later] == ["mark", "sample"]
    assert later[0]["data"] == {"at_s": 2.0, "text": "worker killed"}


def test_an_idle_stream_has_a_heartbeat(client: httpx.Client) -> None:
    with client.stream("GET", "/events") as stream:
        messages = events(stream)
        assert [next(messages)["kind"], next(messages)["kind"]] == ["snapshot", "beat"]


def test_a_closing_page_sends_the_last_messages_and_frees_its_port(feed: Feed) -> None:
    with Page(feed) as page:
        port = httpx.URL(page.address).port
        kinds: list[str] = []

        def read() -> None:
            with httpx.stream("GET", f"{page.address}events", trust_env=False) as stream:
                kinds.extend(message["kind"] for message in events(stream))

        reader = threading.Thread(target=read)
        reader.start()
        wait_until("the reader listens", lambda: kinds)
        feed.mark("the last")
    reader.join(10)

    assert (kinds[0], kinds[-2:]) == ("snapshot", ["mark", "end"])
    assert "live-page" not in {thread.name for thread in threading.enumerate()}
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_a_port_that_is_taken_is_one_line(feed: Feed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigurationError, match=rf"^cannot serve the page on port {port}: Address already in use$"
        ):
            Page(feed, port=port).__enter__()


def test_a_page_without_controls_refuses_orders(client: httpx.Client) -> None:
    assert "#" not in str(client.base_url)
    assert "data-do" not in client.get("/").text

    answer = client.post("/control/reset", json={})

    assert (answer.status_code, "no controls here" in answer.json()["detail"]) == (403, True)


@pytest.mark.parametrize("token", [b"", b"wrong", b"\xe9\xff"])
def test_an_order_without_the_token_is_refused(stage: Staged, token: bytes) -> None:
    answer = order(stage, "spike", token=token)

    assert answer.status_code == 403
    assert stage.feed.state["status"] == "ready"


def test_the_token_is_in_no_document(stage: Staged) -> None:
    url, _, token = stage.address.partition("#")

    assert len(token) >= 16
    for path in PATHS:
        assert token not in httpx.get(url + path, trust_env=False).text


def test_an_order_that_does_not_exist_is_404(stage: Staged) -> None:
    answer = order(stage, "explode")

    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no control 'explode'")


def vote(stage: Staged, step: str, token: str | None = None, **entry: Any) -> httpx.Response:
    """Send a step of a vote."""
    url, _, own = stage.address.partition("#")
    headers = {"X-Control-Token": own if token is None else token}
    return httpx.post(f"{url}vote/{step}", headers=headers, json=entry, trust_env=False)


def test_a_vote_needs_the_token_a_known_step_and_a_known_question(stage: Staged) -> None:
    assert vote(stage, "ask", token="", question="naive").status_code == 403
    assert vote(stage, "cheat").json()["detail"] == "there is no step 'cheat' of a vote"
    assert vote(stage, "ask", question="lunch").json()["detail"] == "there is no question 'lunch'"
    assert vote(stage, "first", counts=["1", "2", "3"]).json()["detail"] == "no question was asked yet"
    assert stage.feed.state["vote"] is None


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (["1", "two", "3"], "B: 'two' is not a number of hands from 0 to 10,000"),
        (["1", "-2", "3"], "B: '-2' is not a number of hands"),
        (["1", "2.5", "3"], "B: '2.5' is not a number of hands"),
        (["1", "2", "1e3"], "C: '1e3' is not"),
        (["\u0663", "2", "1"], "A: '\u0663' is not"),
        (["10001", "2", "1"], "A: '10001' is not a number of hands from 0 to 10,000"),
        (["9" * 400, "", ""], "is not a number of hands"),
        (["", "", ""], "no hand was counted"),
        (["0", "0", "0"], "no hand was counted"),
        ([], "no hand was counted"),
        ([1, 2, 3], "Input should be a valid string"),
        (["1"] * 9, "at most 4"),
        ("12", "Input should be a valid array"),
    ],
)
def test_an_invalid_count_is_one_line_and_the_count_before_stays(stage: Staged, counts: Any, reason: str) -> None:
    vote(stage, "ask", question="spike")
    assert vote(stage, "first", counts=["1", "", " 3 "]).status_code == 204
    before = stage.feed.state["vote"]

    answer = vote(stage, "first", counts=counts)

    assert answer.status_code == 422
    assert reason in answer.json()["detail"] and "\n" not in answer.json()["detail"]
    assert stage.feed.state["vote"] == before
    assert [row["first"]["hands"] for row in before["rows"]] == ["1", "0", "3"]


def test_the_second_count_comes_after_the_first_and_the_answer_is_in_no_message_before_it_is_shown(
    stage: Staged,
) -> None:
    vote(stage, "ask", question="spike")
    for step in ("second", "answer"):
        assert "the first count comes before it" in vote(stage, step, counts=["1", "2", "3"]).json()["detail"]
    vote(stage, "first", counts=["1", "2", "3"])
    vote(stage, "second", counts=["0", "5", "0"])
    sent = json.dumps(stage.feed.since(-1)[0].data, ensure_ascii=False)
    assert "✓" not in sent and "adds no capacity" not in sent

    assert vote(stage, "answer").status_code == 204

    shown = stage.feed.state["vote"]
    assert [row["letter"] for row in shown["rows"]] == ["A", "B ✓", "C"]
    assert shown["note"].endswith("Right answers: 33 %, then 100 %.")


@pytest.mark.parametrize("name", ["kill", "freeze", "restart"])
def test_an_order_that_is_not_possible_now_is_409_with_the_reason(stage: Staged, name: str) -> None:
    answer = order(stage, name)

    assert answer.status_code == 409
    assert "is not possible now: the stack is restarting" in answer.json()["detail"]


@pytest.mark.parametrize(
    "prediction", [{"peak": -1}, {"peak": "many"}, {"empty_s": 1e10}, {"peak": []}, {"empty_s": "1 s"}]
)
def test_an_invalid_prediction_is_422_and_nothing_starts(stage: Staged, prediction: dict[str, Any]) -> None:
    answer = order(stage, "spike", **prediction)

    assert answer.status_code == 422
    [name] = prediction
    assert answer.json()["detail"].startswith(f"{name}: Input should be")
    assert stage.feed.state["title"] == stage.stage.sizes.text


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b'{"peak": NaN}', b'{"peak": 1e999}', b"[]"])
def test_a_body_without_a_prediction_is_422(stage: Staged, body: bytes) -> None:
    url, _, token = stage.address.partition("#")
    headers = {"X-Control-Token": token, "Content-Type": "application/json"}

    assert httpx.post(f"{url}control/spike", headers=headers, content=body, trust_env=False).status_code == 422
