"""API keys: each request needs one, a key gives access to its own jobs only, and no key is written anywhere."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from overload_demo.api.access import ApiKeys
from overload_demo.api.app import create_app
from overload_demo.config import Settings, load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.store.connect import Store
from tests.http.test_direct import validate
from tests.http.test_jobs_contract import assert_problem
from tests.support.running import (
    JOB,
    api_process,
    client_of,
    environment,
    files_below,
    make_settings,
    serving_api,
    submit,
    wait_for,
    worker_process,
    working,
)
from tests.support.stores import in_store

ADA, BOB = "ada-key-0123456789abcdef", "bob-key-fedcba9876543210"
KEYS = f"{ADA}, {BOB}"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path, overload_api_keys=KEYS)


@pytest.fixture
def client(settings: Settings, store: Store) -> Iterator[httpx.Client]:
    with serving_api(settings, store) as one:
        yield one


def calls(client: httpx.Client, headers: dict[str, str]) -> list[httpx.Response]:
    """Every kind of request that needs a key."""
    job_id = "job_" + "0" * 32
    return [
        client.post("/jobs", json=JOB, headers=headers),
        client.post("/jobs", json=JOB, headers=headers | {"Idempotency-Key": "k"}),
        client.post("/jobs", content=b"not json", headers=headers),
        client.get(f"/jobs/{job_id}", headers=headers),
        client.delete(f"/jobs/{job_id}", headers=headers),
        client.get("/queue/stats", headers=headers),
        client.get("/metrics", headers=headers),
        client.get("/nothing", headers=headers),
        client.put("/jobs", headers=headers),
    ]


WRONG = {
    "none": {},
    "another": bearer("0123456789abcdef0123456789abcdef"),
    "the beginning of one": bearer(ADA[:-1]),
    "one and more": bearer(ADA + "x"),
    "both": bearer(KEYS),
    "empty": {"Authorization": "Bearer"},
    "without a scheme": {"Authorization": ADA},
    "another scheme": {"Authorization": f"Basic {ADA}"},
    "not ASCII": {"Authorization": "Bearer \u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"},
}


@pytest.mark.parametrize("what", WRONG)
def test_every_path_without_a_key_is_a_401(client: httpx.Client, what: str) -> None:
    headers = {name: value.encode("latin-1") for name, value in WRONG[what].items()}
    for answer in calls(client, headers):  # type: ignore[arg-type]
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    stats = client.get("/queue/stats", headers=bearer(ADA)).json()
    assert stats["accepted"] == 0


def test_two_authorization_headers_are_a_401(client: httpx.Client) -> None:
    headers = [("Authorization", f"Bearer {ADA}"), ("Authorization", f"Bearer {BOB}")]

    assert_problem(client.get("/queue/stats", headers=headers), 401)


@pytest.mark.parametrize("host", ["x/health", "x/health?", "x#/health", "127.0.0.1:80@health"])
def test_no_host_header_bypasses_the_key_check(client: httpx.Client, host: str) -> None:
    """CVE-2026-48710: a path built from the client's headers is not the path that is routed."""
    assert client.get("/queue/stats", headers={"Host": host}).status_code in {400, 401}


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/", "/docs", "/docs/docs.js", "/openapi.json"])
def test_health_checks_and_documentation_need_no_key(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_each_configured_key_is_accepted(client: httpx.Client, scheme: str) -> None:
    for key in (ADA, BOB):
        assert client.post("/jobs", json=JOB, headers={"Authorization": f"{scheme} {key}"}).status_code == 202


def test_another_keys_job_is_a_404_like_an_unknown_id(client: httpx.Client) -> None:
    job_id = client.post("/jobs", json=JOB, headers=bearer(ADA)).json()["job_id"]

    for method in ("GET", "DELETE"):
        foreign = client.request(method, f"/jobs/{job_id}", headers=bearer(BOB))
        unknown = client.request(method, "/jobs/job_" + "0" * 32, headers=bearer(BOB))
        assert foreign.status_code == 404
        assert (foreign.content, foreign.headers.keys()) == (unknown.content, unknown.headers.keys())
    assert client.get(f"/jobs/{job_id}", headers=bearer(ADA)).json()["status"] == "queued"
    assert client.delete(f"/jobs/{job_id}", headers=bearer(ADA)).json()["status"] == "cancelled"


def test_idempotency_keys_are_separate_per_owner(client: httpx.Client) -> None:
    def post(key: str) -> str:
        answer = client.post("/jobs", json=JOB, headers=bearer(key) | {"Idempotency-Key": "the same"})
        return str(answer.json()["job_id"])

    assert post(ADA) == post(ADA) != post(BOB) == post(BOB)


def test_a_job_submitted_with_a_key_runs_and_can_be_polled_with_it(
    settings: Settings, store: Store, client: httpx.Client
) -> None:
    client.headers.update(bearer(ADA))
    ids = submit(client, 3)
    with working(settings, store):
        wait_for(client, ids)


def test_a_job_submitted_before_keys_were_set_is_a_404(tmp_path: Path, store: Store) -> None:
    before = make_settings(tmp_path)
    with serving_api(before, store) as client:
        [job_id] = submit(client)
    after = before.model_copy(update={"overload_api_keys": load_settings(overload_api_keys=KEYS).overload_api_keys})
    with serving_api(after, store) as client:
        assert client.get(f"/jobs/{job_id}", headers=bearer(ADA)).status_code == 404


def test_the_store_holds_only_a_digest_and_nothing_without_keys(
    tmp_path: Path, settings: Settings, store: Store, client: httpx.Client
) -> None:
    plain = make_settings(tmp_path)
    with serving_api(plain, store) as open_to_all:
        submit(open_to_all)
    for key in (ADA, ADA, BOB):
        client.post("/jobs", json=JOB, headers=bearer(key))

    jobs, _ = in_store(settings, store)
    owners = [job["owner"] for job in jobs.values()]
    assert len(set(owners)) == 2
    assert all(len(owner) == 16 and int(owner, 16) >= 0 for owner in owners)
    [job] = in_store(plain, store)[0].values()
    assert job.keys() == {"job_id", "payload", "status", "created_at", "seq"}


@pytest.mark.anyio
async def test_openapi_describes_keys_only_if_they_are_set(tmp_path: Path, settings: Settings, store: Store) -> None:
    app = create_app(settings, store)
    async with client_of(app) as client:
        description = (await client.get("/openapi.json", headers=bearer(ADA))).json()
        for name in ("POST /jobs", "GET /jobs/{job_id}", "DELETE /jobs/{job_id}", "GET /queue/stats"):
            method, path = name.split(" ")
            validate(description, name, await client.request(method, path.format(job_id="x")))
            assert description["paths"][path][method.lower()]["security"] == [{"apiKey": []}]
    assert description["components"]["securitySchemes"] == {"apiKey": {"type": "http", "scheme": "bearer"}}
    assert "security" not in description["paths"]["/health"]["get"]
    assert "ecurity" not in json.dumps(create_app(make_settings(tmp_path), store).openapi())


@pytest.mark.anyio
async def test_an_app_that_reads_its_settings_at_start_checks_keys_too(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``uvicorn overload_demo.api.app:app``."""
    monkeypatch.setenv("OVERLOAD_API_KEYS", KEYS)
    monkeypatch.setenv("OVERLOAD_DATA_DIR", str(tmp_path))
    async with client_of(create_app(None, store)) as client:
        assert (await client.get("/queue/stats")).status_code == 401
        assert (await client.get("/queue/stats", headers=bearer(BOB))).status_code == 200
        assert "apiKey" in (await client.get("/openapi.json", headers=bearer(BOB))).text


@pytest.mark.parametrize(
    "keys", ["short", f"{ADA},", f",{ADA}", " ", ",", f"{ADA},{ADA}", f"{ADA},x", "two words 0123456789", "\u00e9" * 20]
)
def test_invalid_keys_are_a_one_line_error_without_the_key(keys: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(overload_api_keys=keys)

    assert str(caught.value).startswith("OVERLOAD_API_KEYS: ")
    assert "\n" not in str(caught.value)
    assert not any(key and key in str(caught.value) for key in keys.replace(",", " ").split() if len(key) > 5)


def test_without_configured_keys_none_is_needed(tmp_path: Path, store: Store) -> None:
    with serving_api(make_settings(tmp_path), store) as client:
        assert all(answer.status_code != 401 for answer in calls(client, {}))
        assert client.get("/queue/stats", headers=bearer("whatever")).status_code == 200


def test_every_digest_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Observed, not timed: a measurement would prove nothing here."""
    compared: list[bytes] = []

    def watched(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr("overload_demo.api.access.hmac.compare_digest", watched)
    api_keys = ApiKeys(load_settings(overload_api_keys=KEYS))
    for key in (ADA, BOB, "another"):
        compared.clear()
        api_keys.owner([(b"authorization", b"Bearer " + key.encode())])
        assert len(set(compared)) == len(compared) == 2


def test_no_key_is_written_to_any_log_response_or_file(tmp_path: Path) -> None:
    """Any log, response, file of the store, or result of the load generator, errors included."""
    secrets: dict[str, Any] = {"OVERLOAD_API_KEYS": KEYS, "OVERLOAD_API_KEY": ADA}
    with api_process(tmp_path, **secrets) as (_, client), worker_process(tmp_path, **secrets):
        answers = calls(client, bearer(ADA)) + calls(client, bearer(ADA + "x")) + calls(client, {})
        load = subprocess.run(
            [sys.executable, "-m", "overload_demo.load", str(client.base_url), "--requests", "50", "--output", "out"],
            env=environment(tmp_path, **secrets),
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert load.returncode == 0, load.stderr
        stats = client.get("/queue/stats", headers=bearer(ADA)).json()
        assert stats["accepted"] >= 50
    texts = [answer.text + str(answer.headers) for answer in answers] + [load.stdout, load.stderr]
    files = files_below(tmp_path)
    texts += [content.decode(errors="replace") for content in files.values()]
    assert len(files) > 5
    assert not [text[:200] for text in texts if ADA in text or BOB in text]


def test_no_key_is_in_a_repr_or_log(settings: Settings, caplog: pytest.LogCaptureFixture, store: Store) -> None:
    caplog.set_level(logging.DEBUG)
    with serving_api(settings, store) as client:
        calls(client, bearer(ADA))

    records = [record for record in caplog.records if record.name.startswith(("overload_demo", "uvicorn"))]
    assert ADA not in "".join(record.getMessage() for record in records)
    assert ADA not in repr(settings) + str(settings) + settings.model_dump_json() + repr(settings.model_dump())
