"""Further forms of the Upstash REST protocol: paths, tokens, methods, and replies in base64 and RESP2."""

import hashlib
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from overload_demo.errors import Outcome, StoreAuthError
from overload_demo.rest.client import Address, Upstash
from tests.support.stores import Rest, b64, kill, servers_of, standalone_store, start_standalone, stop, token_file
from tests.support.waiting import wait_until

SHEBANG = "#!lua flags=allow-key-locking\n"


# --- a command in the path --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_path_is_a_command(rest: Rest, method: str) -> None:
    assert rest.send(method, "/set/k/v/EX/100")[:2] == (200, {"result": "OK"})
    assert rest.send(method, "/GET/k").body == {"result": "v"}
    assert rest.send(method, "/ttl/k").body["result"] in {99, 100}
    assert rest.send(method, "/mget/k/absent").body == {"result": ["v", None]}


def test_arguments_are_ordered_path_body_query(rest: Rest) -> None:
    value = b'{"any": "thing", "or": "\xff\x00"}'
    assert rest.send("POST", "/set/k?EX=100&NX", value).body == {"result": "OK"}
    assert rest.send("POST", "/set/k?EX=100&NX", b"other").body == {"result": None}
    assert rest.run("STRLEN", "k") == len(value)
    assert rest.send("GET", "/get/k", headers={"Upstash-Encoding": "base64"}).body == {"result": b64(value)}
    assert rest.run("TTL", "k") in {99, 100}


def test_a_path_is_split_before_it_is_decoded(rest: Rest) -> None:
    assert rest.send("GET", "/set/a%2Fb%20%C3%BC/%FF%00").body == {"result": "OK"}
    assert rest.run("KEYS", "*") == ["a/b ü"]
    assert rest.run("STRLEN", "a/b ü") == 2
    assert rest.send("GET", "/set//empty").body == {"result": "OK"}
    assert rest.run("GET", "") == "empty"


def test_an_extra_slash_in_the_store_url_changes_nothing(rest: Rest) -> None:
    for path in ("//", "/"):
        assert rest.post(path, ["PING"]).body == {"result": "PONG"}
    for path in ("//pipeline", "/pipeline/", "//multi-exec", "/multi-exec/"):
        assert rest.post(path, [["PING"]]).body == [{"result": "PONG"}]
    for path in ("//ping", "/ping/", "///ping//"):
        assert rest.send("GET", path).body == {"result": "PONG"}


def test_a_bad_command_in_a_path_is_a_400(rest: Rest) -> None:
    not_there = "See https://upstash.com/docs/redis/overall/rediscompatibility for details"
    assert rest.send("GET", "/no/such/path")[:2] == (
        400,
        {"error": f"ERR Command is not available: 'no'. {not_there}"},
    )
    assert rest.send("GET", "/get")[:2] == (400, {"error": "ERR wrong number of arguments for 'get' command"})
    for path in ("/", "/pipeline", "/multi-exec"):
        assert rest.send("GET", path)[:2] == (400, {"error": "EOF"})
    in_bytes = rest.send("GET", "/script/%FFkill")
    assert (in_bytes.status, "not available" in in_bytes.body["error"]) == (400, True)


def test_a_command_in_a_path_has_the_same_limit(rest: Rest) -> None:
    reply = rest.send("POST", "/set/k", b"x" * (10 * 1024 * 1024))
    assert reply.status == 413
    assert reply.body["error"].startswith("ERR max request size exceeded. Limit: 10485760, Actual: 104857")
    assert rest.run("EXISTS", "k") == 0


# --- methods ----------------------------------------------------------------------------------------------------------


def test_a_head_is_a_get_without_the_body(rest: Rest) -> None:
    reply = rest.send_for_bytes("HEAD", "/set/k/v")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "15")
    assert rest.run("GET", "k") == "v"
    assert rest.send("HEAD", "/get").status == 400


def test_browsers_may_send_requests_from_any_page(rest: Rest) -> None:
    page = {"Origin": "https://page.example", "Authorization": ""}
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,upstash-encoding",
    }
    preflight = rest.send("OPTIONS", "/pipeline", headers=page | asked)
    assert preflight[:2] == (200, None)
    assert preflight.headers["access-control-allow-origin"] == "https://page.example"
    assert preflight.headers["access-control-allow-headers"] == "authorization,upstash-encoding"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    reply = rest.send("POST", "/", b'["PING"]', {"Origin": "https://page.example"})
    assert reply.headers["access-control-allow-origin"] == "https://page.example"
    assert rest.send("POST", "/", b'["PING"]', page).status == 401


def test_other_methods_are_a_405_without_a_body(rest: Rest) -> None:
    for method in ("DELETE", "PATCH", "PROPFIND"):
        reply = rest.send_for_bytes(method, "/get/k")
        assert (reply.status, reply.body) == (405, b"")
        assert reply.headers["allow"] == "HEAD, GET, POST, PUT, OPTIONS"


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_the_token_is_in_the_header_or_in_the_query_which_wins(rest: Rest) -> None:
    for header in (rest.token, f"bearer {rest.token}", f"  Bearer   {rest.token} "):
        assert rest.send("GET", "/ping", headers={"Authorization": header}).status == 200
    for path in ("/set/k/v?_token={}", "/set/k?EX=100&_token={}", "/set/k?_token={}&EX=100"):
        reply = rest.send("POST", path.format(rest.token), b"body", {"Authorization": "Bearer wrong"})
        assert (reply.status, reply.body.get("result")) == ((200, "OK") if "EX" in path else (400, None)), path
    assert rest.run("GET", "k") == "body"
    assert rest.send("GET", "/ping?_token=wrong").status == 401
    assert rest.post("/?_token=wrong", ["PING"]).status == 401
    assert rest.post(f"/pipeline?_token={rest.token}", [["PING"]], Authorization="").status == 200


def test_the_read_only_token_reads_and_nothing_else(rest: Rest) -> None:
    rest.run("SET", "k", "v")
    reader = Rest(rest.url, rest.read_only_token)
    assert reader.run("GET", "k") == "v"
    assert reader.send("GET", f"/get/k?_token={reader.token}", headers={"Authorization": ""}).body == {"result": "v"}
    for command in (["set", "k", "x"], ["EVALSHA", "0" * 40, 0], ["KEYS", "*"], ["SCAN", 0], ["FLUSHDB"]):
        denied = {
            "error": f"NOPERM this user has no permissions to run the '{command[0].lower()}' command or its subcommand"
        }
        assert reader.post("/", command)[:2] == (400, denied)
        assert reader.post("/pipeline", [command, ["GET", "k"]]).body == [denied, {"result": "v"}]
        assert reader.post("/multi-exec", [["GET", "k"], command])[:2] == (400, denied)
    assert reader.send("GET", "/del/k").status == 400
    assert rest.run("GET", "k") == "v"


@pytest.mark.anyio
async def test_the_rest_client_reports_what_is_wrong_with_a_token(rest: Rest) -> None:
    for token, error in (
        (rest.read_only_token, "is it the read-only one?"),
        ("wrong", "check UPSTASH_REDIS_REST_TOKEN"),
    ):
        upstash = Upstash(Address(rest.url, SecretStr(token)))
        with pytest.raises(StoreAuthError, match=re.escape(error)) as caught:
            await upstash.command("SET", "k", "v")
        await upstash.aclose()
        assert token not in str(caught.value)
        assert caught.value.outcome is Outcome.NOT_ENQUEUED
    assert rest.run("EXISTS", "k") == 0


def chosen_tokens(folder: Path, standard: str, read_only: str) -> list[str]:
    files = token_file(folder / "mine", standard), token_file(folder / "theirs", read_only)
    return ["--token-file", str(files[0]), "--read-only-token-file", str(files[1])]


def test_the_tokens_change_at_each_start_and_may_be_chosen(tmp_path: Path) -> None:
    with standalone_store(tmp_path) as first:
        pass
    with standalone_store(tmp_path) as second:
        tokens = {first.token, first.read_only_token, second.token, second.read_only_token}
        assert len(tokens) == 4
    with standalone_store(tmp_path, *chosen_tokens(tmp_path, "mine", "theirs")) as chosen:
        assert (chosen.token, chosen.read_only_token) == ("mine", "theirs")
        assert Rest(chosen.url, "theirs").run("EXISTS", "k") == 0
        assert Rest(chosen.url, first.read_only_token).post("/", ["PING"]).status == 401


def test_equal_tokens_are_refused_at_start(tmp_path: Path) -> None:
    code, errors = stop(started := start_standalone(tmp_path, *chosen_tokens(tmp_path, "same", "same")), 0)
    assert started.returncode == code == 1
    assert errors == "error: the read-only token is the same as the token: they must differ\n"


# --- base64 -----------------------------------------------------------------------------------------------------------


def test_base64_covers_every_string_but_the_status_ok(rest: Rest) -> None:
    def run(*command: str) -> object:
        return rest.post("/", command, Upstash_Encoding="base64").body["result"]

    assert run("SET", "k", "v") == "OK"
    assert run("GET", "k") == b64("v")
    assert run("PING") == b64("PONG")
    assert run("RPUSH", "l", "OK", "ü") == 2
    assert run("LRANGE", "l", "0", "-1") == [b64("OK"), b64("ü")]
    assert run("LINDEX", "l", "0") == b64("OK"), "a stored OK is no status"
    assert run("GET", "absent") is None
    assert run("EVAL", "return {'\\255\\000', {'x'}, redis.status_reply('OK')}", "0") == [
        b64(b"\xff\x00"),
        [b64("x")],
        b64("OK"),
    ]
    error = rest.post("/", ["GET"], Upstash_Encoding="base64")
    assert error[:2] == (400, {"error": "ERR wrong number of arguments for 'get' command"})


def test_base64_resp2_and_plain_requests_do_not_mix(rest: Rest) -> None:
    pipeline = [["SET", "k", "v"], ["GET", "k"]]
    coded = [{"result": "OK"}, {"result": b64("v")}]
    for path in ("/multi-exec", "/pipeline"):
        assert rest.post(path, pipeline, Upstash_Encoding="base64").body == coded
        assert rest.post(path, pipeline).body == [{"result": "OK"}, {"result": "v"}]


def test_a_large_reply_in_base64_is_whole(rest: Rest) -> None:
    rest.post("/pipeline", [["RPUSH", "l", *("x" * 100 for _ in range(1000))]] * 50)
    items = rest.post("/", ["LRANGE", "l", 0, -1], Upstash_Encoding="base64").body["result"]
    assert items == [b64("x" * 100)] * 50_000


def test_base64_is_served_again_after_the_server_has_died(tmp_path: Path) -> None:
    def exchange(rest: Rest) -> object:
        return rest.post("/", ["GET", "k"], Upstash_Encoding="base64").body.get("result")

    with standalone_store(tmp_path) as rest:
        rest.run("SET", "k", "v")
        assert exchange(rest) == b64("v")
        [server] = servers_of(tmp_path)
        kill(server.pid)
        wait_until("it is served again", lambda: exchange(rest) == b64("v"))


# --- RESP2 ------------------------------------------------------------------------------------------------------------


def test_resp2_replies_are_the_servers_own_bytes(rest: Rest) -> None:
    as_resp2 = {"Upstash-Response-Format": "resp2"}

    def exchange(path: str, body: bytes) -> tuple[int, bytes]:
        reply = rest.send_for_bytes("POST", path, body, as_resp2)
        assert reply.headers["content-type"] == "application/octet-stream"
        assert reply.headers["upstash-sync-token"]
        return reply[:2]

    assert exchange("/", b'["SET", "foo", "bar"]') == (200, b"+OK\r\n")
    assert exchange("/get/foo", b"") == (200, b"$3\r\nbar\r\n")
    assert exchange("/set/raw", b"\xff\r\n\x00") == (200, b"+OK\r\n")
    assert exchange("/", b'["MGET", "raw", "absent"]') == (200, b"*2\r\n$4\r\n\xff\r\n\x00\r\n$-1\r\n")
    assert exchange("/", b'["GET"]') == (400, b"-ERR wrong number of arguments for 'get' command\r\n")
    assert exchange("/", b'["GET", null]') == (400, b"-ERR null args are not supported\r\n")
    mixed = b'[["INCR", "n"], ["GET", null], ["EXISTS", "n"]]'
    assert exchange("/pipeline", mixed) == (200, b":1\r\n-ERR null args are not supported\r\n:1\r\n")


def test_a_transaction_is_always_answered_in_json(rest: Rest) -> None:
    reply = rest.post("/multi-exec", [["INCR", "n"]], Upstash_Response_Format="resp2")
    assert (reply.body, reply.headers["content-type"]) == ([{"result": 1}], "application/json")


@pytest.mark.parametrize(
    "headers",
    [{"Upstash-Response-Format": "xml"}, {"Upstash-Response-Format": "resp2", "Upstash-Encoding": "base64"}],
    ids=["unknown", "with base64"],
)
def test_an_unknown_format_is_a_400(rest: Rest, headers: dict[str, str]) -> None:
    reply = rest.send("POST", "/", b'["SET", "k", "v"]', headers)
    assert reply.status == 400
    assert "Upstash-Response-Format" in reply.body["error"]
    assert rest.send("POST", "/", b'["GET", "k"]', {"Upstash-Response-Format": "json"}).body == {"result": None}


# --- scripts that lock keys -------------------------------------------------------------------------------------------


def test_a_script_with_allow_key_locking_runs_and_keeps_its_sha(rest: Rest) -> None:
    script = SHEBANG + "return {KEYS[1], ARGV[1]}"
    sha = hashlib.sha1(script.encode()).hexdigest()
    assert rest.post("/", ["EVALSHA", sha, 1, "k", "v"]).body["error"].startswith("NOSCRIPT")
    assert rest.run("EVAL", script, 1, "k", "v") == ["k", "v"]
    assert rest.run("EVALSHA", sha.upper(), 1, "k", "v") == ["k", "v"]
    assert rest.run("SCRIPT", "EXISTS", sha, "0" * 40) == [1, 0]
    assert rest.post("/multi-exec", [["EVALSHA", sha, 1, "k", "v"]]).body == [{"result": ["k", "v"]}]
    assert rest.run("EVALSHA_RO", sha, 1, "k", "v") == ["k", "v"]
    assert rest.run("SCRIPT", "FLUSH") == "OK"
    assert rest.run("SCRIPT", "EXISTS", sha) == [0]
    assert rest.post("/", ["EVALSHA", sha, 1, "k", "v"]).body["error"].startswith("NOSCRIPT")


def test_a_loaded_script_is_known_by_its_clients_sha(rest: Rest) -> None:
    script = SHEBANG + "return redis.call('GET', KEYS[1])"
    sha = hashlib.sha1(script.encode()).hexdigest()
    for headers, body in (
        ({}, f'{{"result":"{sha}"}}'),
        ({"Upstash-Encoding": "base64"}, f'{{"result":"{b64(sha)}"}}'),
        ({"Upstash-Response-Format": "resp2"}, f"$40\r\n{sha}\r\n"),
    ):
        reply = rest.send_for_bytes("POST", "/script/load", script.encode(), headers)
        assert reply[:2] == (200, body.encode())
    assert rest.run("EVALSHA", sha, 1, "k") is None
    broken = rest.post("/", ["SCRIPT", "LOAD", SHEBANG + "not lua"])
    assert (broken.status, "user_script:2" in broken.body["error"]) == (400, True), "lines stay where they were"


def test_other_flags_of_a_script_keep_their_meaning(rest: Rest) -> None:
    writes = "#!lua flags=no-writes,allow-key-locking\nreturn redis.call('SET', KEYS[1], 'v')"
    assert "Write commands are not allowed" in rest.post("/", ["EVAL", writes, 1, "k"]).body["error"]
    assert rest.run("EVAL", "#!lua flags=no-writes\nreturn 1", 0) == 1
    assert rest.run("EVAL", SHEBANG.strip(), 0) is None
    assert rest.run("EXISTS", "k") == 0
