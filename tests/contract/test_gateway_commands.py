"""Every command that Upstash documents is served, refused with its message, or listed as missing in the README."""

import re
from pathlib import Path

import pytest

from overload_demo.store.gateway.commands import NOT_OVER_REST
from tests.support.stores import Rest

README = Path(__file__).parents[2] / "overload_demo" / "store" / "README.md"
NOT_IN_REST = 'ERR Command "{}" is not allowed in REST or it has a special context path'
# upstash.com/docs/redis/commands, 2026-08
DOCUMENTED = """
ACL CAT:ACL GENPASS:ACL LIST:ACL RESTTOKEN:ACL SETUSER:ACL WHOAMI:APPEND:AUTH:BITCOUNT:BITFIELD:BITFIELD_RO:BITOP:
BITPOS:BLMOVE:BLMPOP:BLPOP:BRPOP:BRPOPLPUSH:BZMPOP:BZPOPMAX:BZPOPMIN:CLIENT GETNAME:CLIENT ID:CLIENT LIST:COMMAND:
CONFIG GET:CONFIG SET:COPY:DBSIZE:DECR:DECRBY:DEL:DELEX:DIGEST:DISCARD:DUMP:ECHO:EVAL:EVALSHA:EVALSHA_RO:EVAL_RO:EXEC:
EXISTS:EXPIRE:EXPIREAT:EXPIRETIME:FCALL:FCALL_RO:FLUSHALL:FLUSHDB:FUNCTION DELETE:FUNCTION FLUSH:FUNCTION KILL:
FUNCTION LIST:FUNCTION LOAD:FUNCTION STATS:GEOADD:GEODIST:GEOHASH:GEOPOS:GEORADIUS:GEORADIUSBYMEMBER:
GEORADIUSBYMEMBER_RO:GEORADIUS_RO:GEOSEARCH:GEOSEARCHSTORE:GET:GETBIT:GETDEL:GETEX:GETRANGE:GETSET:HDEL:HELLO:HEXISTS:
HEXPIRE:HEXPIREAT:HEXPIRETIME:HGET:HGETALL:HGETDEL:HGETEX:HINCRBY:HINCRBYFLOAT:HKEYS:HLEN:HMGET:HMSET:HPERSIST:
HPEXPIRE:HPEXPIREAT:HPEXPIRETIME:HPTTL:HRANDFIELD:HSCAN:HSET:HSETEX:HSETNX:HSTRLEN:HTTL:HVALS:INCR:INCRBY:INCRBYFLOAT:
INFO:JSON.ARRAPPEND:JSON.DEL:JSON.GET:JSON.MGET:JSON.SET:JSON.TYPE:KEYS:LINDEX:LINSERT:LLEN:LMOVE:LMPOP:LPOP:LPOS:
LPUSH:LPUSHX:LRANGE:LREM:LSET:LTRIM:MEMORY USAGE:MGET:MONITOR:MSET:MSETNX:MULTI:PERSIST:PEXPIRE:PEXPIREAT:PEXPIRETIME:
PFADD:PFCOUNT:PFMERGE:PING:PSETEX:PSUBSCRIBE:PTTL:PUBLISH:PUBSUB CHANNELS:PUNSUBSCRIBE:QUIT:RANDOMKEY:RENAME:RENAMENX:
RESET:RESTORE:RPOP:RPOPLPUSH:RPUSH:RPUSHX:SADD:SCAN:SCARD:SCRIPT EXISTS:SCRIPT FLUSH:SCRIPT KILL:SCRIPT LOAD:SDIFF:
SDIFFSTORE:SEARCH.CREATE:SEARCH.QUERY:SELECT:SET:SETBIT:SETEX:SETNX:SETRANGE:SINTER:SINTERCARD:SINTERSTORE:SISMEMBER:
SMEMBERS:SMISMEMBER:SMOVE:SPOP:SRANDMEMBER:SREM:SSCAN:STRLEN:SUBSCRIBE:SUNION:SUNIONSTORE:TIME:TOUCH:TTL:TYPE:UNLINK:
UNSUBSCRIBE:UNWATCH:WAIT:WAITAOF:WATCH:XACK:XACKDEL:XADD:XAUTOCLAIM:XCLAIM:XDEL:XDELEX:XGROUP CREATE:XINFO CONSUMERS:
XINFO GROUPS:XINFO STREAM:XLEN:XPENDING:XRANGE:XREAD:XREADGROUP:XREVRANGE:XTRIM:ZADD:ZCARD:ZCOUNT:ZDIFF:ZDIFFSTORE:
ZINCRBY:ZINTER:ZINTERCARD:ZINTERSTORE:ZLEXCOUNT:ZMPOP:ZMSCORE:ZPOPMAX:ZPOPMIN:ZRANDMEMBER:ZRANGE:ZRANGEBYLEX:
ZRANGEBYSCORE:ZRANGESTORE:ZRANK:ZREM:ZREMRANGEBYLEX:ZREMRANGEBYRANK:ZREMRANGEBYSCORE:ZREVRANGE:ZREVRANGEBYLEX:
ZREVRANGEBYSCORE:ZREVRANK:ZSCAN:ZSCORE:ZUNION:ZUNIONSTORE
"""
CONNECTION = """AUTH BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN CLIENT DISCARD EXEC HELLO MONITOR
MULTI PSUBSCRIBE PUNSUBSCRIBE QUIT RESET SELECT SUBSCRIBE UNSUBSCRIBE UNWATCH WATCH"""


def missing() -> list[str]:
    """The names that the README's table lists as not available."""
    rows = re.findall(r"^\| (`.*?) \| `ERR Command is not available`", README.read_text(), re.M)
    return re.findall(r"`([^`]+)`", " ".join(rows))


def is_listed(command: str) -> bool:
    names = missing()
    return any(command == name or command.startswith((f"{name} ", name.removesuffix("*"))) for name in names)


@pytest.mark.parametrize("command", DOCUMENTED.replace("\n", "").split(":"))
def test_a_documented_command_is_served_or_refused_as_documented(rest: Rest, command: str) -> None:
    reply = rest.post("/", command.split())
    error = reply.body.get("error", "")
    if command.split()[0] in CONNECTION.split():
        assert (reply.status, error) == (400, NOT_IN_REST.format(command.split()[0]))
    else:
        assert ("ERR Command is not available" in error) == is_listed(command), reply
        assert "unknown" not in error


def test_every_command_of_the_table_is_documented() -> None:
    assert len(missing()) > 8
    commands = DOCUMENTED.replace("\n", "").split(":")
    assert [name for name in missing() if not any(one.startswith(name.removesuffix("*")) for one in commands)] == []


@pytest.mark.parametrize("name", ["OBJECT", "SORT", "LCS", "ROLE", "SLOWLOG", "CLUSTER", "NOSUCH", "", "\u017fet"])
def test_commands_that_upstash_lacks_are_not_available(rest: Rest, name: str) -> None:
    page = "https://upstash.com/docs/redis/overall/rediscompatibility"
    expected = f"ERR Command is not available: '{name}'. See {page} for details"
    assert rest.post("/", [name, "k"])[:2] == (400, {"error": expected})


BLOCK = ["XREADGROUP COUNT 1 BLOCK 0 GROUP g c STREAMS s >", "XREADGROUP NOACK BLOCK 0 GROUP g c STREAMS s >"]
BLOCK += ["XREADGROUP BLOCK 0 GROUP g c STREAMS s >", "XREADGROUP GROUP g c BLOCK 0 STREAMS s >"]
BLOCK += ["xreadgroup group g c count 1 block 0 streams s >", "XREADGROUP LATER 1 BLOCK 0 GROUP g c STREAMS s >"]
BLOCK += ["XREAD COUNT 1 BLOCK 0 STREAMS s $", "XREAD BLOCK 0 STREAMS s $"]


@pytest.mark.parametrize("command", BLOCK)
def test_a_blocking_option_is_refused_at_any_position(rest: Rest, command: str) -> None:
    rest.run("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
    expected = {"error": NOT_IN_REST.format(f"{command.split()[0].upper()} BLOCK")}
    assert rest.post("/", command.split())[:2] == (400, expected)
    assert rest.send("GET", "/" + "/".join(command.split()))[:2] == (400, expected)
    assert rest.post("/pipeline", [command.split()]).body == [expected]


@pytest.mark.parametrize("command", ["XREADGROUP COUNT 1 GROUP BLOCK STREAMS STREAMS BLOCK >", "XREAD STREAMS BLOCK 0"])
def test_groups_consumers_and_streams_may_have_the_name_of_an_option(rest: Rest, command: str) -> None:
    rest.run("XGROUP", "CREATE", "BLOCK", "BLOCK", "$", "MKSTREAM")
    assert rest.run(*command.split()) is None


def test_every_blocking_command_of_the_server_is_refused_or_bounded(rest: Rest) -> None:
    blocking = {row[0].upper() for row in rest.run("COMMAND") if "blocking" in row[2]}
    assert len(blocking) > 8
    by_option = {"XREAD", "XREADGROUP", "WAIT", "WAITAOF"}
    assert blocking - NOT_OVER_REST == by_option


def test_no_administrative_command_can_be_called_in_a_script(rest: Rest) -> None:
    rows = [row for family in rest.run("COMMAND") for row in (family, *family[9])]
    names = [row[0] for row in rows if "@admin" in row[6] and "noscript" not in row[2]]
    assert {"commandlog|get", "slowlog|reset"} <= set(names)
    for name in [*names, "memory|purge", "memory|doctor", "memory|stats", "memory|malloc-stats"]:
        words = ", ".join(f"'{word}'" for word in [*name.split("|"), *["1", "2", "3"]])
        for count in range(4):
            call = words.rsplit(", ", count)[0]
            reply = rest.post("/", ["EVAL", f"return redis.call({call})", 0])
            assert reply.status == 400, (call, reply)
            if "ermission" in reply.body["error"] or "NOPERM" in reply.body["error"]:
                break
        else:
            pytest.fail(f"{name}: {reply}")


@pytest.mark.parametrize("script", ["redis.set_repl(redis.REPL_NONE)", "server.set_repl(0) return 1"])
def test_a_script_cannot_skip_the_append_only_file(rest: Rest, script: str) -> None:
    library = f"#!lua name=l\nredis.register_function('f', function() {script} end)"
    for command in (
        *(["EVAL", script, 0], ["EVAL_RO", script, 0], ["SCRIPT", "LOAD", script], ["FUNCTION", "LOAD", library]),
        ["FUNCTION", "LOAD", "REPLACE", library],
    ):
        reply = rest.post("/", command)
        assert (reply.status, reply.body["error"][:39]) == (400, "ERR set_repl is not allowed in scripts:"), reply
    assert rest.run("EVAL", "return ARGV[1]", 0, "set_repl") == "set_repl"
