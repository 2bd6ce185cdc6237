// @upstash/queue: a consumer group on a stream, with its own, older @upstash/redis.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Queue } from "@upstash/queue";
import { Redis } from "@upstash/redis";

test("messages are received once, in order, and again if not verified", async () => {
  const redis = Redis.fromEnv();
  const queue = new Queue({ redis, queueName: "jobs", concurrencyLimit: 5, autoVerify: false, visibilityTimeout: 1 });
  const sent = [];
  for (const number of [1, 2]) sent.push(await queue.sendMessage({ number }));
  assert.ok(sent.every(Boolean));
  const first = await queue.receiveMessage();
  assert.deepEqual(first, { streamId: sent[0], body: { number: 1 } });
  const idle = async () => (await redis.xpending("UpstashMQ:jobs", "Messages", "-", "+", 1))[0][2];
  while ((await idle()) < 1);
  assert.deepEqual(await queue.receiveMessage(), first, "it was not verified");
  assert.equal(await queue.verifyMessage(first.streamId), "VERIFIED");
  const second = await queue.receiveMessage();
  assert.deepEqual(second, { streamId: sent[1], body: { number: 2 } });
  assert.equal(await queue.verifyMessage(second.streamId), "VERIFIED");
  assert.equal(await queue.receiveMessage(), null);
  assert.equal(await queue.verifyMessage(second.streamId), "NOT VERIFIED");
});
