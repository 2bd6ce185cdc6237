"""The vendor's clients for Python work on the embedded store as on the cloud."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from upstash_ratelimit import FixedWindow, Ratelimit, SlidingWindow, TokenBucket
from upstash_ratelimit.asyncio import Ratelimit as AsyncRatelimit
from upstash_ratelimit.limiter import Limiter
from upstash_redis import Redis
from upstash_redis.asyncio import Redis as AsyncRedis
from upstash_redis.errors import UpstashError

from tests.support.stores import Rest

LOCKING = "#!lua flags=allow-key-locking\nreturn redis.call('SET', KEYS[1], ARGV[1])"
NO_RETRY = {"rest_retries": 0, "allow_telemetry": True}
LIMITERS = [FixedWindow(3, 1, "h"), SlidingWindow(3, 1, "h"), TokenBucket(3, 3, 1, "h")]

each_limiter = pytest.mark.parametrize("limiter", LIMITERS, ids=lambda limiter: type(limiter).__name__)


@pytest.fixture
def redis(rest: Rest) -> Iterator[Redis]:
    with Redis(rest.url, rest.token, **NO_RETRY) as redis:
        yield redis


@pytest.mark.parametrize("encoding", ["base64", None])
@pytest.mark.parametrize("value", ["", "OK", "T0s=", "ünïcödé \U0001f600\n\x00", "9007199254740993"], ids=repr)
def test_values_are_returned_unchanged(rest: Rest, encoding: Any, value: str) -> None:
    with Redis(rest.url, rest.token, rest_encoding=encoding, **NO_RETRY) as redis:
        assert redis.set("k", value)
        assert redis.get("k") == value


def test_the_types_of_redis(redis: Redis) -> None:
    assert redis.get("absent") is None
    assert redis.hset("h", values={"name": "Ada", "age": 36, "more": {"a": None}}) == 3
    assert redis.hgetall("h") == {"name": "Ada", "age": "36", "more": '{"a": null}'}
    assert redis.rpush("l", "OK", "a", 1.5) == 3
    assert redis.lrange("l", 0, -1) == ["OK", "a", "1.5"]
    assert redis.zadd("z", {"one": 1.5}) == 1
    assert redis.zrange("z", 0, -1, withscores=True) == [("one", 1.5)]
    assert redis.incrby("n", 9_007_199_254_740_993) == 9_007_199_254_740_993
    assert redis.ping() == "PONG"
    assert redis.set("k", "v", ex=100, nx=True) is True
    assert redis.scan(0, match="k*") == (0, ["k"])


def test_a_pipeline_and_a_transaction(redis: Redis) -> None:
    assert redis.pipeline().set("k", 1).incr("k").get("absent").exec() == [True, 2, None]
    assert redis.multi().set("k", 10).incr("k").exec() == [True, 11]
    with pytest.raises(UpstashError, match="WRONGTYPE"):
        redis.pipeline().set("k", "v").lpush("k", "x").exec()
    # the client's error for one object in place of a list (1.8.0); nothing may have been applied
    with pytest.raises(AttributeError):
        redis.multi().set("k", "changed").json.get("k").exec()
    assert redis.get("k") == "v"


def test_scripts_by_their_text_and_by_their_name(redis: Redis) -> None:
    assert redis.eval("return {KEYS[1], ARGV[1]}", keys=["k"], args=["v"]) == ["k", "v"]
    sha = redis.script_load(LOCKING)
    assert redis.script_exists(sha) == [True]
    assert redis.evalsha(sha, keys=["k"], args=["v"]) == "OK"
    with pytest.raises(UpstashError, match=r"^NOSCRIPT"):
        redis.evalsha("0" * 40)


def test_the_asynchronous_client(rest: Rest) -> None:
    async def use() -> list[Any]:
        async with AsyncRedis(rest.url, rest.token, **NO_RETRY) as redis:
            await redis.set("n", 0)
            together = await asyncio.gather(*(redis.incr("n") for _ in range(50)))
            assert sorted(together) == list(range(1, 51))
            assert await redis.eval(LOCKING, keys=["k"], args=["v"]) == "OK"
            pipeline = await redis.pipeline().get("k").get("n").exec()
            return pipeline + await redis.multi().incr("n").exec()

    assert asyncio.run(use()) == ["v", "50", 51]


def test_the_sync_token_moves_with_writes(redis: Redis) -> None:
    redis.get("k")
    before = redis._sync_token
    redis.set("k", "v")
    assert before
    assert redis._sync_token != before


def test_a_slash_after_the_url_changes_nothing(rest: Rest) -> None:
    with Redis(rest.url + "/", rest.token, **NO_RETRY) as redis:
        assert redis.set("k", "v")
        assert redis.pipeline().get("k").exec() == ["v"]
        assert redis.multi().get("k").exec() == ["v"]


def test_a_wrong_token_a_read_only_one_and_an_unknown_command(rest: Rest, redis: Redis) -> None:
    with Redis(rest.url, "wrong", **NO_RETRY) as stranger:
        with pytest.raises(UpstashError, match=r"^WRONGPASS invalid or missing auth token"):
            stranger.get("k")
    with Redis(rest.url, rest.read_only_token, **NO_RETRY) as reader:
        assert reader.get("k") is None
        with pytest.raises(UpstashError, match=r"^NOPERM this user has no permissions to run the 'set' command"):
            reader.set("k", "v")
    with pytest.raises(UpstashError, match=r"Command is not available: 'JSON\.GET'"):
        redis.json.get("k")
    assert redis.exists("k") == 0


@each_limiter
def test_a_rate_limit_holds(redis: Redis, limiter: Limiter) -> None:
    ratelimit = Ratelimit(redis=redis, limiter=limiter)
    assert [ratelimit.limit("client 1").allowed for _ in range(4)] == [True, True, True, False]
    assert ratelimit.get_remaining("client 1") == 0
    assert ratelimit.get_remaining("client 2") == 3


@each_limiter
def test_a_rate_limit_holds_when_awaited(rest: Rest, limiter: Limiter) -> None:
    async def use() -> list[bool]:
        async with AsyncRedis(rest.url, rest.token, **NO_RETRY) as redis:
            ratelimit = AsyncRatelimit(redis=redis, limiter=limiter)
            return sorted([one.allowed for one in await asyncio.gather(*(ratelimit.limit("me") for _ in range(4)))])

    assert asyncio.run(use()) == [False, True, True, True]
