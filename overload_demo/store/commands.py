"""Which commands the gateway lets through.

A list of what is allowed, so that a server's newest dangerous command is refused before anybody has heard of it. All
requests share one connection to the server: what blocks it, or changes its state, would hit everybody.
"""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


READS = _names(
    """
    BITCOUNT BITFIELD_RO BITPOS DBSIZE DUMP ECHO EXISTS EXPIRETIME GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO
    GEORADIUS_RO GEOSEARCH GET GETBIT GETRANGE HEXISTS HEXPIRETIME HGET HGETALL HKEYS HLEN HMGET HPEXPIRETIME HPTTL
    HRANDFIELD HSCAN HSTRLEN HTTL HVALS INFO KEYS LASTSAVE LCS LINDEX LLEN LOLWUT LPOS LRANGE MEMORY MGET OBJECT
    PEXPIRETIME PFCOUNT PING PTTL PUBSUB RANDOMKEY ROLE SCAN SCARD SDIFF SINTER SINTERCARD SISMEMBER SMEMBERS
    SMISMEMBER SORT_RO SRANDMEMBER SSCAN STRLEN SUBSTR SUNION TIME TOUCH TTL TYPE WAIT WAITAOF XINFO XLEN XPENDING
    XRANGE XREAD XREVRANGE ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD ZLEXCOUNT ZMSCORE ZRANDMEMBER ZRANGE ZRANGEBYLEX
    ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION COMMAND EVAL_RO
    EVALSHA_RO FCALL_RO
    """
)

# Scripts count as writes: nobody looks into them.
WRITES = _names(
    """
    APPEND BITFIELD BITOP COPY DECR DECRBY DEL DELIFEQ EVAL EVALSHA EXPIRE EXPIREAT FCALL FLUSHDB FUNCTION GEOADD
    GEORADIUS GEORADIUSBYMEMBER GEOSEARCHSTORE GETDEL GETEX GETSET HDEL HEXPIRE HEXPIREAT HGETDEL HGETEX HINCRBY
    HINCRBYFLOAT HMSET HPERSIST HPEXPIRE HPEXPIREAT HSET HSETEX HSETNX INCR INCRBY INCRBYFLOAT LINSERT LMOVE LMPOP
    LPOP LPUSH LPUSHX LREM LSET LTRIM MSET MSETEX MSETNX PERSIST PEXPIRE PEXPIREAT PFADD PFMERGE PSETEX PUBLISH
    RENAME RENAMENX RESTORE RPOP RPOPLPUSH RPUSH RPUSHX SADD SCRIPT SDIFFSTORE SET SETBIT SETEX SETNX SETRANGE
    SINTERSTORE SMOVE SORT SPOP SPUBLISH SREM SUNIONSTORE UNLINK XACK XACKDEL XADD XAUTOCLAIM XCLAIM XDEL XDELEX XGROUP
    XREADGROUP XSETID XTRIM ZADD ZDIFFSTORE ZINCRBY ZINTERSTORE ZMPOP ZPOPMAX ZPOPMIN ZRANGESTORE ZREM
    ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZUNIONSTORE
    """
)

# Known, but without a meaning where each request stands alone.
NOT_OVER_REST = _names(
    """
    BLPOP BRPOP BLMOVE BRPOPLPUSH BLMPOP BZPOPMIN BZPOPMAX BZMPOP WATCH UNWATCH MULTI EXEC DISCARD SUBSCRIBE UNSUBSCRIBE
    PSUBSCRIBE PUNSUBSCRIBE SSUBSCRIBE SUNSUBSCRIBE MONITOR AUTH HELLO SELECT CLIENT QUIT RESET
    """
)

# Families with dangerous members (SCRIPT DEBUG takes the whole connection, FUNCTION KILL and MEMORY PURGE the server).
SUBCOMMANDS = {
    "FUNCTION": frozenset({"DELETE", "DUMP", "FLUSH", "LIST", "LOAD", "RESTORE", "STATS"}),
    "MEMORY": frozenset({"USAGE"}),
    "SCRIPT": frozenset({"EXISTS", "FLUSH", "LOAD"}),
}


class CommandRefusedError(Exception):
    """The gateway does not send this command; ``status`` is what HTTP says when it was the whole request."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def not_available(name: str) -> str:
    """What Upstash says to a command it does not know."""
    return (
        f"ERR Command is not available: '{name[:128]}'. "
        "See https://upstash.com/docs/redis/overall/rediscompatibility for details"
    )


def admit(arguments: list[str]) -> tuple[list[str], bool]:
    """Let a command through: the arguments to send, and whether it may change data.

    Raises :class:`CommandRefusedError` for a command that is not allowed.
    """
    name = arguments[0].upper()
    is_write = name in WRITES
    if not is_write and name not in READS:
        raise CommandRefusedError(_not_over_rest(name) if name in NOT_OVER_REST else not_available(arguments[0]))
    if name in SUBCOMMANDS and len(arguments) > 1 and arguments[1].upper() not in SUBCOMMANDS[name]:
        raise CommandRefusedError(not_available(f"{arguments[0]} {arguments[1]}"))
    if name in {"XREAD", "XREADGROUP"} and _blocks(name, arguments):
        raise CommandRefusedError(_not_over_rest(f"{name} BLOCK"))
    if name in {"WAIT", "WAITAOF"} and len(arguments) > 2 and arguments[-1].isdecimal():
        # Waiting would hold up everybody on the connection: it reports what is confirmed within a millisecond.
        arguments = [*arguments[:-1], "1"]
    return arguments, is_write


def _not_over_rest(name: str) -> str:
    return f'ERR Command "{name}" is not allowed in REST or it has a special context path'


def _blocks(name: str, arguments: list[str]) -> bool:
    """Whether the option BLOCK stands before the streams (after GROUP, group and consumer, which may have any name)."""
    for argument in arguments[4 if name == "XREADGROUP" else 1 :]:
        option = argument.upper()
        if option == "STREAMS":
            return False
        if option == "BLOCK":
            return True
    return False
