"""Every command that Upstash documents is served, refused in its words, or listed as missing in the README."""

import re
from pathlib import Path

import pytest

from tests.support.stores import Rest

README = Path(__file__).parents[2] / "README.md"
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
    """The names in the README's table that are answered as not available."""
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


def test_what_the_table_names_is_documented() -> None:
    assert len(missing()) > 8
    commands = DOCUMENTED.replace("\n", "").split(":")
    assert [name for name in missing() if not any(one.startswith(name.removesuffix("*")) for one in commands)] == []


@pytest.mark.parametrize("name", ["OBJECT", "SORT", "LCS", "ROLE", "SLOWLOG", "CLUSTER", "NOSUCH", "", "\u017fet"])
def test_what_upstash_does_not_have_is_not_to_be_had_here(rest: Rest, name: str) -> None:
    page = "https://upstash.com/docs/redis/overall/rediscompatibility"
    expected = f"ERR Command is not available: '{name}'. See {page} for details"
    assert rest.post("/", [name, "k"])[:2] == (400, {"error": expected})
