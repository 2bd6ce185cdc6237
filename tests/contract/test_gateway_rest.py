"""The Upstash REST protocol against a real server: status and body of every kind of request."""

import json
import socket
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.stores import Rest, standalone_store

MIB = 1024 * 1024
NOT_AVAILABLE = (
    "ERR Command is not available: '{}'. See https://upstash.com/docs/redis/overall/rediscompatibility for details"
)
NOT_IN_REST = 'ERR Command "{}" is not allowed in REST or it has a special context path'


# --- one command ------------------------------------------------------------------------------------------------------


def test_results_have_the_json_type_of_their_redis_type(rest: Rest) -> None:
    assert rest.run("SET", "k", "v") == "OK"
    assert rest.run("GET", "k") == "v"
    assert rest.run("GET", "absent") is None
    assert rest.run("RPUSH", "l", "a", "b") == 2
    assert rest.run("LRANGE", "l", 0, -1) == ["a", "b"]
    assert rest.run("HSET", "h", "f", "v") == 1
    assert rest.run("HGETALL", "h") == ["f", "v"]
    assert rest.run("ZADD", "z", 1.5, "m") == 1
    assert rest.run("ZSCORE", "z", "m") == "1.5", "a double is a string, as RESP2 has it"
    assert rest.run("EVAL", "return {1, false, {'x', {}}}", 0) == [1, None, ["x", []]]


def test_numbers_keep_their_text_and_booleans_become_words(rest: Rest) -> None:
    body = b'["RPUSH", "l", 1.50, 9007199254740993, -0, 1e5, 12345678901234567890123, true, false]'
    assert rest.send("POST", "/", body).status == 200
    kept = ["1.50", "9007199254740993", "-0", "1e5", "12345678901234567890123", "true", "false"]
    assert rest.run("LRANGE", "l", 0, -1) == kept


def test_an_integer_reply_is_exact_to_the_last_digit(rest: Rest) -> None:
    rest.run("SET", "n", "9223372036854775806")
    assert rest.run("INCR", "n") == 9223372036854775807


@pytest.mark.parametrize(
    "text", ["", 'quote " and \\ slash', "line\nbreak \x00\x1f", "ünïcödé", "\U0001f600", "\u2028"], ids=repr
)
def test_any_string_is_returned_unchanged(rest: Rest, text: str) -> None:
    rest.run("SET", "k", text)
    assert rest.run("GET", "k") == text


def test_bytes_that_are_not_utf8_become_the_replacement_character(rest: Rest) -> None:
    rest.send("POST", "/", b'["SET", "lone", "a\\ud800z"]')
    rest.send("POST", "/", b'["SET", "pair", "\\ud83d\\ude00"]')
    rest.send("POST", "/", b'["SET", "raw", "a\xffz"]')
    assert rest.run("MGET", "lone", "pair", "raw") == ["a\ufffdz", "\U0001f600", "a\ufffdz"]
    assert rest.run("EVAL", "return '\\255'", 0) == "\ufffd"


def test_put_equals_post_and_the_content_type_is_ignored(rest: Rest) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert rest.send("PUT", "/", b'["SET", "k", "v"]', form).body == {"result": "OK"}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "EOF"),
        (b"  \n", "EOF"),
        (b'{"a": 1}', "expected JSON array"),
        (b'"PING"', "expected JSON array"),
        (b"[]", "ERR empty command"),
        (b'["GET", null]', "ERR null args are not supported"),
        (b'["GET", ["k"]]', 'ERR unsupported arg type: "[": json.Delim'),
        (b'["GET", {"k": 1}]', 'ERR unsupported arg type: "{": json.Delim'),
        (b'["SET", "k", NaN]', "ERR invalid JSON: NaN is not JSON"),
        (b'["SET", "k", -Infinity]', "ERR invalid JSON: -Infinity is not JSON"),
        (b'["GET", "k"', "ERR invalid JSON: Expecting ',' delimiter: line 1 column 12 (char 11)"),
        (b'["GET", "k"] x', "ERR invalid JSON: Extra data: line 1 column 14 (char 13)"),
        (b"[" * 100_000, "ERR invalid JSON: nested too deeply"),
        (b'["GET"]', "ERR wrong number of arguments for 'get' command"),
        (b'["LPUSH", "k", "v"]', None),
        (b'["NOSUCH", "k"]', NOT_AVAILABLE.format("NOSUCH")),
        (b'["CONFIG", "GET", "*"]', NOT_AVAILABLE.format("CONFIG")),
        (b'["blpop", "k", 0]', NOT_IN_REST.format("BLPOP")),
        (b'["EVAL", "return redis.error_reply(\'MY own\')", 0]', "MY own"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_command_is_a_400_with_upstashs_message(rest: Rest, body: bytes, error: str | None) -> None:
    reply = rest.send("POST", "/", body)
    if error is None:
        assert reply.status == 200
    else:
        assert (reply.status, reply.body) == (400, {"error": error})


def test_an_error_of_the_server_is_a_400(rest: Rest) -> None:
    rest.run("SET", "k", "text")
    reply = rest.post("/", ["LPUSH", "k", "v"])
    assert reply.status == 400
    assert reply.body == {"error": "WRONGTYPE Operation against a key holding the wrong kind of value"}


def test_an_error_inside_a_scripts_array_is_text(rest: Rest) -> None:
    assert rest.run("EVAL", "return {1, redis.error_reply('ERR inner'), 'x'}", 0) == [1, "ERR inner", "x"]


BLOCKING = [["BLPOP", "k", 0], ["BLMOVE", "a", "b", "LEFT", "LEFT", 0], ["BZMPOP", 0, 1, "z", "MIN"]]
CONNECTION = [["WATCH", "k"], ["MULTI"], ["EXEC"], ["SUBSCRIBE", "c"], ["MONITOR"], ["SELECT", 1], ["CLIENT", "KILL"]]
SERVER = [
    *(["CONFIG", "SET", "appendonly", "no"], ["DEBUG", "SLEEP", 9], ["SHUTDOWN"], ["FLUSHALL"], ["SAVE"], ["BGSAVE"]),
    *(["MODULE", "LOAD", "x"], ["REPLICAOF", "h", 1], ["ACL", "LIST"], ["CLUSTER", "INFO"], ["SCRIPT", "DEBUG", "YES"]),
    *(
        ["ACL", "SETUSER", "x", "on"],
        ["BGREWRITEAOF"],
        ["SLAVEOF", "h", 1],
        ["PSYNC", "?", -1],
        ["FAILOVER"],
        ["ASKING"],
    ),
    *(["SLOWLOG", "RESET"], ["COMMANDLOG", "RESET"], ["SCRIPT", "KILL"], ["CLIENT", "LIST"], ["CLIENT", "PAUSE", 9]),
    *(["CONFIG", "REWRITE"], ["MODULE", "LOADEX", "x"], ["DEBUG", "SEGFAULT"], ["REPLCONF"], ["PFDEBUG"], ["READONLY"]),
    *(["MEMORY", "PURGE"], ["FUNCTION", "KILL"], ["SWAPDB", 0, 1], ["MIGRATE"], ["SYNC"], ["LATENCY", "RESET"]),
]
STREAM = [
    ["XREAD", "BLOCK", 0, "STREAMS", "s", "$"],
    ["XREADGROUP", "GROUP", "g", "c", "block", 0, "STREAMS", "s", ">"],
]


@pytest.mark.parametrize("command", BLOCKING + CONNECTION + SERVER + STREAM, ids=lambda command: str(command[0]))
def test_blocking_and_administrative_commands_are_refused_everywhere(rest: Rest, command: list[str]) -> None:
    refused = rest.post("/", command)
    assert refused.status == 400
    assert "not available" in refused.body["error"] or "not allowed in REST" in refused.body["error"]
    assert rest.post("/pipeline", [command, ["PING"]]).body == [refused.body, {"result": "PONG"}]
    discarded = rest.post("/multi-exec", [["SET", "k", "v"], command])
    assert (discarded.status, discarded.body) == (400, refused.body)
    assert rest.run("EXISTS", "k") == 0


DANGEROUS = ["CONFIG", "DEBUG", "SHUTDOWN", "MODULE", "FLUSHALL", "ACL", "SAVE", "REPLICAOF", "MONITOR", "CLIENT"]


@pytest.mark.parametrize("name", DANGEROUS)
def test_no_spelling_of_a_dangerous_command_passes(rest: Rest, name: str) -> None:
    rest.run("SET", "k", "v")
    spellings = [
        name.lower(),
        name.title(),
        f" {name}",
        f"{name} ",
        f"{name}\n",
        f"{name}\x00",
        f"{name}|GET",
        f"\ufeff{name}",
    ]
    for spelling in spellings:
        assert rest.post("/", [spelling, "GET", "*"]).status == 400
        assert "error" in rest.post("/pipeline", [[spelling, "GET", "*"]]).body[0]
        assert rest.post("/multi-exec", [["DEL", "k"], [spelling, "GET", "*"]]).status == 400
    for path in (f"/{name}/GET/*", f"/{name.lower()}", f"/pipeline/../{name}", f"//{name}", f"/{name}?_token=x"):
        for method in ("GET", "POST", "PUT"):
            assert rest.send(method, path, b"[]" if method != "GET" else None).status in {400, 401}
    assert rest.run("GET", "k") == "v"


IN_SCRIPTS = [
    *(["CONFIG", "SET", "appendonly", "no"], ["DEBUG", "SLEEP", "0"], ["SHUTDOWN"], ["FLUSHALL"], ["MODULE", "LIST"]),
    *(["ACL", "LIST"], ["SAVE"], ["BGSAVE"], ["BGREWRITEAOF"], ["REPLICAOF", "no", "one"], ["CLIENT", "KILL", "x"]),
    *(["SCRIPT", "KILL"], ["SCRIPT", "FLUSH"], ["SWAPDB", "0", "0"], ["MIGRATE", "127.0.0.1", "1", "k", "0", "1"]),
    *(["MONITOR"], ["SYNC"], ["FAILOVER"], ["SLOWLOG", "RESET"], ["CLUSTER", "RESET"], ["FUNCTION", "FLUSH"]),
]


@pytest.mark.parametrize("command", IN_SCRIPTS, ids=lambda command: " ".join(command[:2]))
def test_a_script_cannot_run_a_refused_command(rest: Rest, command: list[str]) -> None:
    """The server refuses: the gateway does not analyse scripts."""
    rest.run("SET", "k", "v")
    for spelling in (command, [command[0].lower(), *command[1:]]):
        words = ", ".join(f"'{word}'" for word in spelling)
        reply = rest.post("/", ["EVAL", f"return redis.call({words})", 0])
        assert reply.status == 400, reply
        assert (
            "not allowed" in reply.body["error"] or "NOPERM" in reply.body["error"] or "permission" in str(reply.body)
        )
    assert rest.run("GET", "k") == "v"


def test_the_gateway_listens_on_loopback_only(shared: Rest) -> None:
    port = urlsplit(shared.url).port
    links = psutil.net_connections("inet")
    listening = {link.laddr.ip for link in links if link.status == psutil.CONN_LISTEN and link.laddr.port == port}
    assert listening == {"127.0.0.1"}


def test_commands_that_resemble_blocking_ones_are_served(rest: Rest) -> None:
    rest.run("XADD", "block", "1-1", "f", "v")
    assert rest.run("XREAD", "COUNT", 1, "STREAMS", "block", 0) == [["block", [["1-1", ["f", "v"]]]]]
    rest.run("XGROUP", "CREATE", "block", "block", 0)
    assert rest.run("XREADGROUP", "GROUP", "block", "me", "STREAMS", "block", ">") is not None
    assert rest.run("WAIT", 1, 600_000) == 0, "it must not hold up the shared connection for ten minutes"


def test_ordinary_administration_of_data_is_allowed(rest: Rest) -> None:
    unknown = rest.post("/", ["EVALSHA", "0" * 40, 0])
    assert unknown.status == 400
    assert unknown.body["error"].startswith("NOSCRIPT ")
    sha = rest.run("SCRIPT", "LOAD", "return ARGV[1]")
    assert rest.run("EVALSHA", sha, 0, "hello") == "hello"
    assert rest.run("SCRIPT", "EXISTS", sha) == [1]
    assert rest.run("SCRIPT", "FLUSH") == "OK"
    assert rest.run("DBSIZE") == 0
    assert "redis_version" in rest.run("INFO", "server")
    assert rest.run("SCAN", 0) == ["0", []]


# --- token, paths, methods --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic {token}", "Bearer {token}x", "Bearer \xff"])
@pytest.mark.parametrize("path", ["/", "/pipeline", "/multi-exec", "/ping", "/other"])
def test_without_the_token_everything_is_a_401(rest: Rest, header: str, path: str) -> None:
    reply = rest.send("POST", path, b'["PING"]', {"Authorization": header.format(token=rest.token)})
    page = "https://docs.upstash.com/redis/troubleshooting/http_unauthorized"
    text = f"WRONGPASS invalid or missing auth token. See {page} for details."
    assert (reply.status, reply.body) == (401, {"error": text})


def test_ping_answers_a_get(rest: Rest) -> None:
    reply = rest.send("GET", "/ping")
    assert (reply.status, reply.body) == (200, {"result": "PONG"})
    assert reply.headers["content-type"] == "application/json"


def test_each_response_has_a_sync_token_that_moves_with_a_write(rest: Rest) -> None:
    def token(*command: str) -> str:
        return rest.post("/", command, Upstash_Sync_Token="").headers["upstash-sync-token"]

    first = token("GET", "k")
    assert first
    assert first == token("GET", "k")
    assert first != token("SET", "k", "v")
    assert rest.post("/", ["NOSUCH"]).headers["upstash-sync-token"]


# --- pipeline and transaction -----------------------------------------------------------------------------------------


def test_each_command_of_a_pipeline_succeeds_or_fails_by_itself(rest: Rest) -> None:
    commands = [["SET", "k", "v"], ["LPUSH", "k", "x"], ["GET", None], [], ["NOSUCH"], ["GET", "k"]]
    reply = rest.post("/pipeline", commands)
    assert reply.status == 200
    assert reply.body == [
        {"result": "OK"},
        {"error": "WRONGTYPE Operation against a key holding the wrong kind of value"},
        {"error": "ERR null args are not supported"},
        {"error": "ERR empty command"},
        {"error": NOT_AVAILABLE.format("NOSUCH")},
        {"result": "v"},
    ]


@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
def test_a_body_that_is_no_array_of_arrays_is_a_400(rest: Rest, path: str) -> None:
    for body, error in ((b"", "EOF"), (b"{}", "expected JSON array"), (b'["SET", "k", "v"]', "expected JSON array")):
        reply = rest.send("POST", path, body)
        assert (reply.status, reply.body) == (400, {"error": error})
    assert rest.send("POST", path, b"[]")[:2] == (200, [])


def test_a_command_failing_at_run_time_does_not_stop_its_transaction(rest: Rest) -> None:
    reply = rest.post("/multi-exec", [["SET", "k", "v"], ["LPUSH", "k", "x"], ["SET", "k", "w"]])
    assert reply.status == 200
    assert [list(item) for item in reply.body] == [["result"], ["error"], ["result"]]
    assert rest.run("GET", "k") == "w"


@pytest.mark.parametrize("bad", [["GET"], ["GET", None], ["NOSUCH"], []], ids=repr)
def test_a_discarded_transaction_is_one_error_and_applies_nothing(rest: Rest, bad: list[str]) -> None:
    reply = rest.post("/multi-exec", [["SET", "k", "v"], bad])
    assert reply.status == 400
    assert list(reply.body) == ["error"]
    assert rest.run("EXISTS", "k") == 0


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_a_command_over_the_limit_is_a_413_and_the_rest_of_its_pipeline_runs(rest: Rest) -> None:
    big = ["SET", "k", "x" * (10 * MIB)]
    reply = rest.post("/", big)
    assert reply.status == 413
    assert reply.body["error"].startswith("ERR max request size exceeded. Limit: 10485760, Actual: 104857")
    first, second = rest.post("/pipeline", [big, ["SET", "k", "small"]]).body
    assert first["error"].startswith("ERR max request size exceeded")
    assert second == {"result": "OK"}
    assert rest.post("/multi-exec", [["DEL", "k"], big]).status == 413
    assert rest.run("GET", "k") == "small"


def test_commands_that_are_large_only_together_are_served(rest: Rest) -> None:
    reply = rest.post("/pipeline", [["SET", f"k{i}", "x" * (6 * MIB)] for i in range(3)])
    assert reply.body == [{"result": "OK"}] * 3


def test_a_reply_over_the_limit_is_a_200_with_an_error(rest: Rest) -> None:
    reply = rest.post("/", ["EVAL", "return string.rep('x', 11 * 1024 * 1024)", 0])
    assert reply.status == 200
    assert reply.body == {"error": "ERR max request size exceeded. Limit: 10485760, Actual: 11534338"}


def test_a_body_that_declares_too_much_is_refused_before_it_is_sent(rest: Rest) -> None:
    parts = urlsplit(rest.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as link:
        head = (
            f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rest.token}\r\nContent-Length: 99999999999\r\n\r\n"
        )
        link.sendall(head.encode())
        assert link.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_full_store_refuses_writes_and_still_serves_reads_and_deletes(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with standalone_store(tmp_path_factory.mktemp("full"), OVERLOAD_MAXMEMORY="4mb") as rest:
        written = 0
        while (reply := rest.post("/", ["SET", f"k{written}", "x" * 100_000])).status == 200:
            written += 1
        assert written > 5
        assert reply.status == 400
        assert reply.body["error"].startswith("OOM command not allowed")
        assert rest.run("STRLEN", "k0") == 100_000
        assert rest.run("DEL", *(f"k{i}" for i in range(written))) == written
        assert rest.run("SET", "k", "v") == "OK"


def test_every_response_is_json_even_to_invalid_requests(rest: Rest) -> None:
    for body in (b"\xff\xfe", b"nul", b"[[[", b'["\\x"]', b'["SET", "a\nb"]', "\ufeff[]".encode()):
        reply = rest.send("POST", "/", body)
        assert reply.status == 400
        assert json.dumps(reply.body)
