// @upstash/ratelimit: its scripts all begin with the allow-key-locking shebang.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { MultiRegionRatelimit, Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis";

const redis = Redis.fromEnv();
const LIMITERS = {
  "fixed window": Ratelimit.fixedWindow(3, "1 h"),
  "sliding window": Ratelimit.slidingWindow(3, "1 h"),
  "token bucket": Ratelimit.tokenBucket(3, "1 h", 3),
  "cached fixed window": Ratelimit.cachedFixedWindow(3, "1 h"),
};

beforeEach(() => redis.flushdb());

for (const [name, limiter] of Object.entries(LIMITERS)) {
  test(name, async () => {
    const ratelimit = new Ratelimit({ redis, limiter, analytics: true, ephemeralCache: new Map() });
    const verdicts = [];
    for (let request = 0; request < 4; request++) {
      const { success, pending } = await ratelimit.limit("client-1");
      verdicts.push(success);
      await pending;
    }
    assert.deepEqual(verdicts, [true, true, true, false]);
    assert.equal((await ratelimit.getRemaining("client-1")).remaining, 0);
    assert.equal((await ratelimit.limit("client-2")).success, true);
    await ratelimit.resetUsedTokens("client-1");
    assert.equal((await ratelimit.limit("client-1")).success, true);
  });
}

for (const [name, limiter] of Object.entries({
  "fixed window": MultiRegionRatelimit.fixedWindow(3, "1 h"),
  "sliding window": MultiRegionRatelimit.slidingWindow(3, "1 h"),
})) {
  test(`${name} over several regions`, async () => {
    const ratelimit = new MultiRegionRatelimit({ redis: [redis, Redis.fromEnv()], limiter });
    const { success, remaining, pending } = await ratelimit.limit("client-1");
    await pending;
    assert.deepEqual([success, remaining], [true, 2]);
  });
}
