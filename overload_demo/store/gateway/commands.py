"""Turn a request's body, path and query into commands ready to be sent, or refuse them.

Only the data commands that Upstash documents (upstash.com/docs/redis/commands) pass, so that a new server's dangerous
command is refused from the start. Requests share one connection: a command that blocks it, or changes its state, would
affect all of them. Only a pipeline that ends with WAIT has a connection of its own, and may wait there.
"""

import hashlib
import json
import re
from itertools import islice
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes

from overload_demo.store.gateway.resp import pack

MAX_COMMAND_BYTES = 10 * 1024 * 1024  # one command, and one reply, as on Upstash's plans without a fixed size
MAX_COMMANDS = 10_000  # in one pipeline or transaction
MAX_VALUES = 1_000_000  # in one body; one takes about 60 bytes in memory, and as few as 2 in the body
EVENT_COMMANDS = frozenset({"SUBSCRIBE", "PSUBSCRIBE", "MONITOR"})


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


READS = _names(
    """
    BITCOUNT BITFIELD_RO BITPOS COMMAND DBSIZE DIGEST DUMP ECHO EVALSHA_RO EVAL_RO EXISTS EXPIRETIME FCALL_RO
    GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETRANGE HEXISTS HEXPIRETIME HGET
    HGETALL HKEYS HLEN HMGET HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSTRLEN HTTL HVALS INFO KEYS LINDEX LLEN LPOS
    LRANGE MEMORY MGET PEXPIRETIME PFCOUNT PING PTTL PUBSUB RANDOMKEY SCAN SCARD SDIFF SINTER SINTERCARD SISMEMBER
    SMEMBERS SMISMEMBER SRANDMEMBER SSCAN STRLEN SUNION TIME TOUCH TTL TYPE WAIT WAITAOF XINFO XLEN XPENDING XRANGE
    XREAD XREVRANGE ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD ZLEXCOUNT ZMSCORE ZRANDMEMBER ZRANGE ZRANGEBYLEX
    ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION
    """
)
# Reads that are powerful or read no data: not for the read-only token, which is made for browsers.
NOT_FOR_READERS = _names("COMMAND EVALSHA_RO EVAL_RO FCALL_RO INFO KEYS PUBSUB SCAN WAIT WAITAOF")
# Scripts count as writes: their text is not analysed.
WRITES = _names(
    """
    APPEND BITFIELD BITOP COPY DECR DECRBY DEL DELEX EVAL EVALSHA EXPIRE EXPIREAT FCALL FLUSHDB FUNCTION GEOADD
    GEORADIUS GEORADIUSBYMEMBER GEOSEARCHSTORE GETDEL GETEX GETSET HDEL HEXPIRE HEXPIREAT HGETDEL HGETEX HINCRBY
    HINCRBYFLOAT HMSET HPERSIST HPEXPIRE HPEXPIREAT HSET HSETEX HSETNX INCR INCRBY INCRBYFLOAT LINSERT LMOVE LMPOP
    LPOP LPUSH LPUSHX LREM LSET LTRIM MSET MSETNX PERSIST PEXPIRE PEXPIREAT PFADD PFMERGE PSETEX PUBLISH RENAME
    RENAMENX RESTORE RPOP RPOPLPUSH RPUSH RPUSHX SADD SCRIPT SDIFFSTORE SET SETBIT SETEX SETNX SETRANGE SINTERSTORE
    SMOVE SPOP SREM SUNIONSTORE UNLINK XACK XACKDEL XADD XAUTOCLAIM XCLAIM XDEL XDELEX XGROUP XREADGROUP XTRIM ZADD
    ZDIFFSTORE ZINCRBY ZINTERSTORE ZMPOP ZPOPMAX ZPOPMIN ZRANGESTORE ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK
    ZREMRANGEBYSCORE ZUNIONSTORE
    """
)
# Known, but without a meaning where each request stands alone.
NOT_OVER_REST = _names(
    """
    AUTH BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN CLIENT DISCARD EXEC HELLO MONITOR MULTI
    PSUBSCRIBE PUNSUBSCRIBE QUIT RESET SELECT SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE UNSUBSCRIBE UNWATCH WATCH
    """
)
# Families with dangerous members (SCRIPT DEBUG takes the whole connection, FUNCTION KILL and MEMORY PURGE the server).
SUBCOMMANDS = {
    "FUNCTION": _names("DELETE FLUSH LIST LOAD STATS"),
    "MEMORY": _names("USAGE"),
    "SCRIPT": _names("EXISTS FLUSH LOAD"),
}
# Upstash's messages, to be formatted with the name of a command.
NOT_AVAILABLE = (
    "ERR Command is not available: '{:.128}'. See https://upstash.com/docs/redis/overall/rediscompatibility for details"
)
NOT_ALLOWED = 'ERR Command "{}" is not allowed in REST or it has a special context path'
NO_PERMISSION = "NOPERM this user has no permissions to run the '{}' command or its subcommand"

SCRIPTED = frozenset({"EVAL", "EVAL_RO", "EVALSHA", "EVALSHA_RO", "SCRIPT"})
SCRIPTS_KEPT = 1000  # an older one costs its client a NOSCRIPT, and the text again
_WAITING = frozenset({"WAIT", "WAITAOF"})
SHARED_WAIT_MS = 1  # WAIT reports what is confirmed by then: a longer one would delay all requests of the connection
LONGEST_WAIT_MS = 5_000  # of the WAIT that ends a pipeline
_SCRIPT_AT = {"EVAL": 1, "EVAL_RO": 1, "SCRIPT": 2, "FUNCTION": -1}
_ARGUMENTS_OF_OPTION = {"GROUP": 2, "COUNT": 1, "NOACK": 0}  # of XREAD and XREADGROUP, in any order before STREAMS
_FLAGS = re.compile(r"(?<=\s)flags=(\S*)")


class RedisCommand(NamedTuple):
    """A command ready to be sent; ``answer``, if any, replaces the server's reply unless that is an error."""

    name: str
    packed: bytes
    is_write: bool
    answer: str = ""


class RefusedError(Exception):
    """The gateway refuses a command or request, with Upstash's message; ``status`` is that of the HTTP response."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class Scripts:
    """Runs scripts that begin with ``#!lua flags=allow-key-locking``, which only Upstash compiles.

    The flag permits scripts side by side; a server with one thread needs none, so it is removed. A client calls the
    script by the SHA-1 of its own text, which is mapped to that of the text that the server received.
    """

    def __init__(self) -> None:
        self._sha_loaded: dict[str, str] = {}

    def adapt(self, name: str, arguments: list[Any]) -> tuple[list[Any], str]:
        """Adapt a command of ``SCRIPTED``; the second value is the SHA-1 that replaces the server's reply, or empty."""
        if name.startswith("EVALSHA"):
            if self._sha_loaded:  # empty on the hot path of clients that use no flag
                arguments = [arguments[0], *map(self._loaded, arguments[1:2]), *arguments[2:]]
            return arguments, ""
        if name != "SCRIPT":
            return [arguments[0], *map(self._without_flag, arguments[1:2]), *arguments[2:]], ""
        if arguments[1:2] and arguments[1].upper() == "EXISTS":
            return [*arguments[:2], *map(self._loaded, arguments[2:])], ""
        adapted = [*arguments[:2], *map(self._without_flag, arguments[2:3]), *arguments[3:]]
        return adapted, _sha(arguments[2]) if adapted != arguments else ""

    def _loaded(self, sha: Any) -> Any:
        return self._sha_loaded.get(sha.lower(), sha)

    def _without_flag(self, text: Any) -> Any:
        """The text without the flag; its lines keep their numbers."""
        if not isinstance(text, str) or not text.startswith("#!lua"):
            return text
        first, newline, rest = text.partition("\n")
        kept = _FLAGS.sub(_without_key_locking, first)
        if kept == first:
            return text
        cut = ("" if kept.strip() == "#!lua" else kept) + newline + rest
        while len(self._sha_loaded) >= SCRIPTS_KEPT:
            del self._sha_loaded[next(iter(self._sha_loaded))]
        self._sha_loaded[_sha(text)] = _sha(cut)
        return cut


def prepare(
    arguments: list[Any], scripts: Scripts, *, read_only: bool, longest_wait_ms: int = SHARED_WAIT_MS
) -> RedisCommand:
    """Make a command of the arguments in a JSON body or path; raises :class:`RefusedError`.

    Strings and bytes are sent as they are, booleans as words; a number must be given as its text. WAIT waits no longer
    than ``longest_wait_ms``.
    """
    if not arguments:
        raise RefusedError("ERR empty command")
    texts = arguments if set(map(type, arguments)) == {str} else [_as_text(one) for one in arguments]
    name = _shown(texts[0]).upper()
    _admit(name, texts, read_only=read_only)
    answer = ""
    if name in SCRIPTED:
        texts, answer = scripts.adapt(name, texts)
    elif name in _WAITING and len(texts) > 2 and texts[-1].isdigit():
        longest_ms = longest_wait_ms if name == "WAIT" else SHARED_WAIT_MS
        is_shorter = re.fullmatch("[1-9][0-9]{0,8}", _shown(texts[-1])) and int(texts[-1]) < longest_ms
        texts = texts if is_shorter else [*texts[:-1], str(longest_ms)]  # 0 would wait for ever
    packed = pack(texts)
    if len(packed) > MAX_COMMAND_BYTES:
        raise RefusedError(too_large(len(packed), MAX_COMMAND_BYTES), status=413)
    return RedisCommand(_shown(texts[0]), packed, name in WRITES, answer)


def _admit(name: str, arguments: list[Any], *, read_only: bool) -> None:
    """Raise :class:`RefusedError` if the command, its ``name`` in capitals, must not be sent."""
    if name not in READS and name not in WRITES:
        message, shown = (NOT_ALLOWED, name) if name in NOT_OVER_REST else (NOT_AVAILABLE, _shown(arguments[0]))
        raise RefusedError(message.format(shown))
    if name in SUBCOMMANDS and len(arguments) > 1 and arguments[1].upper() not in SUBCOMMANDS[name]:
        raise RefusedError(NOT_AVAILABLE.format(f"{arguments[0]} {_shown(arguments[1])}"))
    if name in {"XREAD", "XREADGROUP"} and _has_block(arguments):
        raise RefusedError(NOT_ALLOWED.format(f"{name} BLOCK"))
    if read_only and (name in WRITES or name in NOT_FOR_READERS):
        raise RefusedError(NO_PERMISSION.format(name.lower()))
    # A script that keeps its writes out of the append-only file is refused, as far as its text shows it.
    at = _SCRIPT_AT.get(name)
    if at is not None and len(arguments) > at and "set_repl" in _shown(arguments[at]):
        raise RefusedError("ERR set_repl is not allowed in scripts: what they write would be lost in a restart")


def too_large(actual: int, limit: int) -> str:
    """Upstash's error for a command or reply that is too large; both numbers are bytes."""
    return f"ERR max request size exceeded. Limit: {limit}, Actual: {actual}"


def _as_text(argument: Any) -> str | bytes:
    if isinstance(argument, str | bytes):
        return argument
    if isinstance(argument, bool):
        return "true" if argument else "false"
    if argument is None:
        raise RefusedError("ERR null args are not supported")
    bracket = "[" if isinstance(argument, list) else "{"
    raise RefusedError(f'ERR unsupported arg type: "{bracket}": json.Delim')


def _shown(argument: str | bytes) -> str:
    return argument if isinstance(argument, str) else argument.decode(errors="replace")


def _has_block(arguments: list[Any]) -> bool:
    """Whether the option BLOCK stands before the streams, as the server reads it: groups may have any name."""
    at = 1
    while at < len(arguments):
        option = _shown(arguments[at]).upper()
        if option == "STREAMS":
            return False
        if option not in _ARGUMENTS_OF_OPTION:  # BLOCK, or an option of a newer server before it
            return "BLOCK" in (_shown(argument).upper() for argument in arguments[at:])
        at += 1 + _ARGUMENTS_OF_OPTION[option]
    return False


def _without_key_locking(flags: re.Match[str]) -> str:
    kept = [flag for flag in flags[1].split(",") if flag != "allow-key-locking"]
    return f"flags={','.join(kept)}" if kept else ""


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(errors="replace"), usedforsecurity=False).hexdigest()


def event_command(headers: dict[bytes, bytes], path: bytes, *, read_only: bool) -> list[Any]:
    """The command of a request for events, its name in capitals; empty for others. Raises :class:`RefusedError`."""
    if b"text/event-stream" not in headers.get(b"accept", b""):
        return []
    name, *channels = path_arguments(path)
    if name.upper() not in EVENT_COMMANDS:
        return []
    if read_only:
        raise RefusedError(NO_PERMISSION.format(name.lower()))
    return [name.upper(), *channels]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# A number keeps its text: 1.50 stays "1.50" and 9007199254740993 keeps its last digit.
_decode = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant).decode
# A string (closed or not, so that none is read twice), the start of an array or object, or another value.
_VALUE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{]|[^\s,:"\[\]{}]++', re.DOTALL)


def request_arguments(path: bytes, query: bytes, body: bytes) -> list[Any]:
    """The arguments of a request with one command; raises :class:`RefusedError`."""
    if not path:
        return _decode_array(body)
    return [*path_arguments(path), *([_text_of(body)] if body else []), *query_arguments(query)]


def _decode_array(body: bytes) -> list[Any]:
    """The JSON array in a request body, its numbers as text; raises :class:`RefusedError`."""
    if not body.strip():
        raise RefusedError("EOF")
    # Counted before any value is created; first by separators, which includes those in strings.
    may_be_many = len(body) > MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) >= MAX_VALUES
    if may_be_many and next(islice(_VALUE.finditer(body), MAX_VALUES, None), None) is not None:
        raise RefusedError(f"ERR too many values in one request. Limit: {MAX_VALUES}", status=413)
    try:
        array = _decode(body.decode("utf-8", "replace"))
    except RecursionError:
        raise RefusedError("ERR invalid JSON: nested too deeply") from None
    except ValueError as error:
        raise RefusedError(f"ERR invalid JSON: {error}") from None
    if not isinstance(array, list):
        raise RefusedError("expected JSON array")
    return array


def decode_commands(body: bytes) -> list[list[Any]]:
    """The array of arrays in the body of a pipeline or transaction; raises :class:`RefusedError`."""
    commands = _decode_array(body)
    if len(commands) > MAX_COMMANDS:
        raise RefusedError(f"ERR too many commands in one request. Limit: {MAX_COMMANDS}", status=413)
    if not all(isinstance(command, list) for command in commands):
        raise RefusedError("expected JSON array")
    return commands


def path_arguments(path: bytes) -> list[Any]:
    """The command in a path, ``/set/a%2Fb/value``, split first and then percent-decoded; bytes where it is not UTF-8.

    Slashes at its ends belong to the URL of the store, so an empty argument can only stand in the middle.
    """
    name, *arguments = path.strip(b"/").split(b"/")
    return [unquote_to_bytes(name).decode(errors="replace"), *(_text_of(unquote_to_bytes(one)) for one in arguments)]


def query_arguments(query: bytes) -> list[Any]:
    """The arguments in a query, ``EX=100&NX``, in their order and without the token."""
    parts = (part.partition(b"=") for part in query.split(b"&") if part)
    words = ((name, value) if mark else (name,) for name, mark, value in parts if name != b"_token")
    return [_text_of(unquote_to_bytes(word.replace(b"+", b" "))) for pair in words for word in pair]


def _text_of(argument: bytes) -> str | bytes:
    try:
        return argument.decode()
    except UnicodeDecodeError:
        return argument
