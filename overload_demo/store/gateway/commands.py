"""From a list of arguments to a command ready to be sent, or to the reason why it is not."""

from typing import Any, NamedTuple

from overload_demo.store.gateway.command_names import (
    NOT_FOR_READERS,
    NOT_OVER_REST,
    READS,
    SUBCOMMANDS,
    WRITES,
)
from overload_demo.store.gateway.key_locking import SCRIPTED, Scripts
from overload_demo.store.gateway.resp import pack

MAX_COMMAND_BYTES = 10 * 1024 * 1024  # one command, and one reply, as on Upstash's plans without a fixed size


class Command(NamedTuple):
    """A command ready to be sent; ``answer`` takes the place of what the server replies, unless that is an error."""

    name: str
    packed: bytes
    is_write: bool
    answer: str = ""


class RefusedError(Exception):
    """The gateway does not do this; ``status`` is what HTTP says when it was the whole request."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def prepare(arguments: list[Any], scripts: Scripts, *, read_only: bool) -> Command:
    """The command in an argument list as JSON or a path has it; raises :class:`RefusedError` when it is not to be sent.

    Strings and bytes go as they are, booleans as words; a number is expected as the text it had.
    """
    if not arguments:
        raise RefusedError("ERR empty command")
    texts = arguments if set(map(type, arguments)) == {str} else [_as_text(one) for one in arguments]
    name = _shown(texts[0]).upper()
    admit(name, texts, read_only=read_only)
    _refuse_unlogged_writes(name, texts)
    answer = ""
    if name in SCRIPTED:
        texts, answer = scripts.adapt(name, texts)
    elif name in _WAITING and len(texts) > 2 and texts[-1].isdigit():
        # Waiting would hold up everybody on the connection: it reports what is confirmed within a millisecond.
        texts = [*texts[:-1], "1"]
    packed = pack(texts)
    if len(packed) > MAX_COMMAND_BYTES:
        raise RefusedError(too_large(len(packed), MAX_COMMAND_BYTES), status=413)
    return Command(_shown(texts[0]), packed, name in WRITES, answer)


def admit(name: str, arguments: list[Any], *, read_only: bool = False) -> None:
    """Return if the command may be sent; raises :class:`RefusedError` in the vendor's words if not.

    ``name`` is that of ``arguments`` in capitals; ``read_only`` says that they came with the read-only token.
    """
    if name not in READS and name not in WRITES:
        raise RefusedError(not_over_rest(name) if name in NOT_OVER_REST else not_available(_shown(arguments[0])))
    if name in SUBCOMMANDS and len(arguments) > 1 and arguments[1].upper() not in SUBCOMMANDS[name]:
        raise RefusedError(not_available(f"{arguments[0]} {_shown(arguments[1])}"))
    if name in {"XREAD", "XREADGROUP"} and _blocks(arguments):
        raise RefusedError(not_over_rest(f"{name} BLOCK"))
    if read_only and (name in WRITES or name in NOT_FOR_READERS):
        raise RefusedError(no_permission(name))


def not_available(name: str) -> str:
    """What Upstash says to a command it does not know."""
    return (
        f"ERR Command is not available: '{name[:128]}'. "
        "See https://upstash.com/docs/redis/overall/rediscompatibility for details"
    )


def not_over_rest(name: str) -> str:
    """What Upstash says to a command that has no meaning where each request stands alone."""
    return f'ERR Command "{name}" is not allowed in REST or it has a special context path'


def no_permission(name: str) -> str:
    """What Upstash says to a command that its token does not cover."""
    return f"NOPERM this user has no permissions to run the '{name.lower()}' command or its subcommand"


def too_large(actual: int, limit: int) -> str:
    """What Upstash says when a command, or its reply, is too large; both numbers are bytes."""
    return f"ERR max request size exceeded. Limit: {limit}, Actual: {actual}"


_WAITING = frozenset({"WAIT", "WAITAOF"})


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


_SCRIPT_AT = {"EVAL": 1, "EVAL_RO": 1, "SCRIPT": 2, "FUNCTION": -1}


def _refuse_unlogged_writes(name: str, arguments: list[Any]) -> None:
    """Refuse a script that keeps its writes out of the append-only file, as far as its text says so."""
    at = _SCRIPT_AT.get(name)
    if at is not None and len(arguments) > at and "set_repl" in _shown(arguments[at]):
        raise RefusedError("ERR set_repl is not allowed in scripts: what they write would be lost in a restart")


_ARGUMENTS_OF_OPTION = {"GROUP": 2, "COUNT": 1, "NOACK": 0}  # of XREAD and XREADGROUP, in any order before STREAMS


def _blocks(arguments: list[Any]) -> bool:
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
