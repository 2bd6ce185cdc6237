"""Settings: read from the environment, wrong ones named in one line, secrets never shown."""

import traceback
from typing import get_args

import pytest

from overload_demo.config import Settings, load_settings
from overload_demo.errors import ConfigurationError

URL, TOKEN = "https://example.upstash.io", "the-secret-token"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def upstash(url: str = URL, token: str = TOKEN) -> Settings:
    return load_settings(upstash_redis_rest_url=url, upstash_redis_rest_token=token)


def test_without_any_variable_the_documented_defaults_hold() -> None:
    settings = load_settings()

    assert not settings.uses_upstash
    assert (settings.worker_processing_delay, settings.worker_poll_interval) == (2.0, 1.0)
    assert (settings.queue_result_ttl, settings.worker_max_attempts, settings.worker_job_timeout_s) == (3600, 3, 300)
    assert settings.overload_max_body_bytes == 65_536
    assert settings.max_poll_interval_s == 5.0
    assert upstash().max_poll_interval_s == 10.0


def test_the_environment_is_read_and_overrides_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_PROCESSING_DELAY", "0.5")
    monkeypatch.setenv("QUEUE_RESULT_TTL", "")

    assert load_settings().worker_processing_delay == 0.5
    assert load_settings().queue_result_ttl == 3600
    assert load_settings(worker_processing_delay=0.1).worker_processing_delay == 0.1


def test_the_longest_poll_interval_is_never_below_the_shortest() -> None:
    assert load_settings(worker_poll_interval=60.0).max_poll_interval_s == 60.0


def test_a_setting_with_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^MAX_QUEUE_DEPTH: is not a setting$"):
        load_settings(max_queue_depth=1)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WORKER_PROCESSING_DELAY", "-1"),
        ("WORKER_PROCESSING_DELAY", "soon"),
        ("WORKER_PROCESSING_DELAY", "nan"),
        ("WORKER_PROCESSING_DELAY", "inf"),
        ("WORKER_POLL_INTERVAL", "0"),
        ("WORKER_JOB_TIMEOUT_S", "inf"),
        ("WORKER_JOB_TIMEOUT_S", "nan"),
        ("OVERLOAD_MAX_WAIT_S", "inf"),
        ("OVERLOAD_MAX_WAIT_S", "nan"),
        ("QUEUE_RESULT_TTL", "0"),
        ("QUEUE_RESULT_TTL", "1.5"),
        ("WORKER_ID", "two words"),
        ("WORKER_LEASE_S", "0.5"),
        ("OVERLOAD_MAXMEMORY", "plenty"),
        ("OVERLOAD_MAX_BODY_BYTES", "10"),
        ("OVERLOAD_MAX_QUEUE_DEPTH", "-1"),
        ("WORKER_SHARDS", "0,x"),
        ("QUEUE_RESULT_TTL", "9999999999999999"),
        ("OVERLOAD_MAX_QUEUE_DEPTH", "9999999999999999"),
        ("OVERLOAD_MAX_WAIT_S", "1e300"),
        ("WORKER_JOB_TIMEOUT_S", "1e300"),
        ("OVERLOAD_MAX_CONNECTIONS", "9999999999999999"),
        ("OVERLOAD_CONNECTIONS_MB", "9999999999999999"),
        ("OVERLOAD_MAXMEMORY", "9999999999999999gb"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert str(caught.value).startswith(f"{variable}: ")
    assert "\n" not in str(caught.value)
    assert "pattern" not in str(caught.value)


def test_every_number_has_a_lower_and_an_upper_bound() -> None:
    numbers = {name: field for name, field in Settings.model_fields.items() if _is_number(field.annotation)}

    for name, field in numbers.items():
        bounds = {type(one).__name__ for one in field.metadata}
        assert bounds & {"Ge", "Gt"}, name
        assert bounds & {"Le", "Lt"}, name
    assert "queue_result_ttl" in numbers
    assert "worker_metrics_port" in numbers


def _is_number(annotation: object) -> bool:
    return bool({int, float} & {annotation, *get_args(annotation)})


@pytest.mark.parametrize("given", ["URL", "TOKEN"])
def test_one_upstash_variable_without_the_other_is_an_error(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(f"UPSTASH_REDIS_REST_{given}", URL if given == "URL" else TOKEN)

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert f"UPSTASH_REDIS_REST_{given} is set" in str(caught.value)
    assert "set both or neither" in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "example.upstash.io",
        "redis://example.upstash.io",
        "http://example.upstash.io",
        "https://",
        "https://user:hunter2@example.upstash.io",
        "https://example.upstash.io?_token=hunter2",
        "https://example.upstash.io#hunter2",
        "https://example.upstash.io:99999",
        "https://example.upstash.io:port",
        "https://exam ple.upstash.io",
        "https://exam\nple.upstash.io",
        "https://[::1",
        "https://b\u00fccher\u2028.example",
    ],
)
def test_an_unusable_upstash_url_is_a_mistake(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        upstash(url)

    assert str(caught.value).startswith("UPSTASH_REDIS_REST_URL: ")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", [URL, URL + "/", "https://example.com:8443", "http://127.0.0.1:8079", "http://[::1]:1"])
def test_a_usable_upstash_url(url: str) -> None:
    assert upstash(url).upstash_redis_rest_url == url.rstrip("/")


@pytest.mark.parametrize("token", ["t\u00f6ken-secret", "two words-secret", "line\nbreak-secret", "\x00secret"])
def test_a_token_that_no_header_can_carry_is_a_mistake(token: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        upstash(token=token)

    assert str(caught.value).startswith("UPSTASH_REDIS_REST_TOKEN: ")
    assert "secret" not in str(caught.value)


def test_several_databases_are_addresses_and_tokens_in_the_same_order() -> None:
    settings = upstash(f"{URL}/, http://127.0.0.1:8079", f"{TOKEN} ,another")

    found = [(url, token.get_secret_value()) for url, token in settings.upstash]
    assert found == [(URL, TOKEN), ("http://127.0.0.1:8079", "another")]
    assert load_settings().upstash == []


@pytest.mark.parametrize(
    ("url", "token", "reason"),
    [
        (f"{URL},http://127.0.0.1:1", TOKEN, "2 addresses but UPSTASH_REDIS_REST_TOKEN 1 tokens"),
        (URL, f"{TOKEN},{TOKEN}", "1 addresses but UPSTASH_REDIS_REST_TOKEN 2 tokens"),
        (f"{URL},{URL}/", f"{TOKEN},{TOKEN}", "UPSTASH_REDIS_REST_URL: contains the same database twice"),
        (f"{URL},", f"{TOKEN},{TOKEN}", "UPSTASH_REDIS_REST_URL: must look like"),
        (f"{URL},redis://x", f"{TOKEN},{TOKEN}", "UPSTASH_REDIS_REST_URL: must look like"),
        (f"{URL},http://127.0.0.1:1", f"{TOKEN},", "UPSTASH_REDIS_REST_TOKEN: must be one word"),
    ],
)
def test_databases_that_do_not_match_are_a_mistake(url: str, token: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        upstash(url, token)

    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_white_space_around_url_and_token_is_forgiven() -> None:
    settings = upstash(f" {URL}\n", f"{TOKEN}\n")

    assert settings.upstash_redis_rest_url == URL
    assert settings.upstash_redis_rest_token is not None
    assert settings.upstash_redis_rest_token.get_secret_value() == TOKEN


def test_no_secret_is_shown() -> None:
    settings = load_settings(
        upstash_redis_rest_url=URL,
        upstash_redis_rest_token=TOKEN,
        overload_redis_url=f"redis://:{TOKEN}@127.0.0.1",
    )
    try:
        load_settings(upstash_redis_rest_token=TOKEN)
    except ConfigurationError as error:
        shown = "".join(traceback.format_exception(error))

    assert TOKEN not in f"{settings!r} {settings} {settings.model_dump_json()} {shown}"


def test_a_202_of_an_embedded_cluster_waits_for_a_replica_unless_it_is_told_not_to() -> None:
    assert load_settings().overload_min_replicas == 0
    assert load_settings(overload_nodes=6).overload_min_replicas == 1
    assert load_settings(overload_nodes=6, overload_min_replicas=0).overload_min_replicas == 0


def test_a_store_that_is_not_the_embedded_one_waits_for_no_replica_by_default() -> None:
    assert load_settings(overload_nodes=6, overload_redis_url="redis://127.0.0.1").overload_min_replicas == 0
    one = load_settings(overload_nodes=6, upstash_redis_rest_url=URL, upstash_redis_rest_token=TOKEN)
    assert one.overload_min_replicas == 0
