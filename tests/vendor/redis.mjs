// @upstash/redis with its defaults: base64, auto-pipelining, read-your-writes.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Redis } from "@upstash/redis";

const { UPSTASH_REDIS_REST_URL: url, UPSTASH_REDIS_REST_TOKEN: token, UPSTASH_REDIS_REST_READ_ONLY_TOKEN: readOnly } =
  process.env;
const redis = Redis.fromEnv();

beforeEach(() => redis.flushdb());

test("values are returned unchanged", async () => {
  for (const value of ["", "OK", "T0s=", "ünïcödé 😀\n\u0000", "9007199254740993n", { a: [1, null, { b: "x" }] }, 42, true]) {
    await redis.set("k", value);
    assert.deepEqual(await redis.get("k"), value);
  }
  assert.equal(await redis.get("absent"), null);
  assert.equal(await redis.set("k", "v", { ex: 100, nx: true }), null);
  assert.equal(await redis.set("k", "v", { xx: true, get: true }), true);
});

test("the types of Redis", async () => {
  await redis.hset("h", { name: "Ada", age: 36 });
  assert.deepEqual(await redis.hgetall("h"), { name: "Ada", age: 36 });
  await redis.rpush("l", "OK", "a", { b: 1 });
  assert.deepEqual(await redis.lrange("l", 0, -1), ["OK", "a", { b: 1 }]);
  await redis.zadd("z", { score: 1.5, member: "one" }, { score: 2, member: "two" });
  assert.deepEqual(await redis.zrange("z", 0, -1, { withScores: true }), ["one", 1.5, "two", 2]);
  await redis.sadd("s", "x");
  assert.deepEqual(await redis.scan(0, { match: "h*" }), ["0", ["h"]]);
  const id = await redis.xadd("x", "*", { field: "value" });
  assert.deepEqual(await redis.xrange("x", "-", "+"), { [id]: { field: "value" } });
  assert.equal(await redis.incrbyfloat("f", 1.25), 1.25);
  assert.equal(await redis.ping(), "PONG");
});

test("concurrent commands share a request", async () => {
  const client = new Redis({ url, token });
  assert.equal(await client.set("n", 1), "OK");
  const before = client.pipelineCounter;
  const answers = await Promise.all([...Array(500).keys()].map(() => client.incr("n")));
  assert.deepEqual(answers, [...Array(500).keys()].map((number) => number + 2));
  assert.equal(client.pipelineCounter, before + 1);
});

test("a pipeline, and one with an error in it", async () => {
  assert.deepEqual(await redis.pipeline().set("k", "v").get("k").hgetall("absent").exec(), ["OK", "v", null]);
  await assert.rejects(redis.pipeline().set("k", "v").lpush("k", "x").exec(), /Command 2 .*WRONGTYPE/);
  const kept = await redis.pipeline().lpush("k", "x").get("k").exec({ keepErrors: true });
  assert.match(kept[0].error, /^WRONGTYPE/);
  assert.equal(kept[1].result, "v");
});

test("a transaction is all or nothing", async () => {
  assert.deepEqual(await redis.multi().set("k", 1).incr("k").get("k").exec(), ["OK", 2, 2]);
  const discarded = redis.multi();
  discarded.set("k", "changed");
  discarded.json.get("k");
  await assert.rejects(discarded.exec(), /Command is not available: 'JSON.GET'/);
  assert.equal(await redis.get("k"), 2);
});

test("scripts, by their text and by their name", async () => {
  const script = redis.createScript("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}");
  assert.deepEqual(await script.exec(["n"], ["v"]), ["n", "v", 1]);
  assert.deepEqual(await script.exec(["n"], ["v"]), ["n", "v", 2]);
  const locking = "#!lua flags=allow-key-locking\nreturn redis.call('SET', KEYS[1], ARGV[1])";
  const sha = await redis.scriptLoad(locking);
  assert.equal(await redis.evalsha(sha, ["k"], ["v"]), "OK");
  assert.deepEqual(await redis.scriptExists(sha), [1]);
});

test("subscribers receive published messages", async () => {
  const received = [];
  const subscriber = redis.subscribe(["chat"]);
  const pattern = redis.psubscribe("ch*");
  const both = new Promise((resolve) => {
    subscriber.on("message", (message) => received.push(message) === 2 && resolve());
    pattern.on("pmessage", (message) => received.push(message) === 2 && resolve());
  });
  await Promise.all([subscriber, pattern].map((one, index) =>
    new Promise((resolve) => one.on(index ? "psubscribe" : "subscribe", resolve))));
  assert.equal(await redis.publish("chat", { text: "a, b\nc" }), 2);
  await both;
  assert.deepEqual(received.map(({ channel, message }) => [channel, message]), Array(2).fill(["chat", { text: "a, b\nc" }]));
  await Promise.all([subscriber.unsubscribe(), pattern.unsubscribe()]);
});

test("the sync token moves with writes", async () => {
  const client = new Redis({ url, token, enableAutoPipelining: false });
  await client.get("k");
  const { upstashSyncToken: before } = client.client;
  await client.set("k", "v");
  assert.ok(before);
  assert.notEqual(client.client.upstashSyncToken, before);
});

test("without base64, and with a slash after the URL", async () => {
  const client = new Redis({ url: `${url}/`, token, responseEncoding: false });
  await client.set("k", "ü");
  assert.equal(await client.get("k"), "ü");
  assert.deepEqual(await client.pipeline().get("k").exec(), ["ü"]);
});

test("a wrong token, a read-only one, and an unknown command", async () => {
  await assert.rejects(new Redis({ url, token: "wrong" }).get("k"), /WRONGPASS invalid or missing auth token/);
  const reader = new Redis({ url, token: readOnly });
  assert.equal(await reader.get("k"), null);
  await assert.rejects(reader.set("k", "v"), /NOPERM this user has no permissions to run the 'set' command/);
  await assert.rejects(redis.json.get("k"), /Command is not available: 'JSON.GET'/);
  assert.equal(await redis.exists("k"), 0);
});
