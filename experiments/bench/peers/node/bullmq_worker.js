// A BullMQ worker with the given concurrency; its job does what job.py does.
const { appendFileSync, openSync } = require('node:fs')
const { setTimeout } = require('node:timers/promises')
const { Worker } = require('bullmq')

const HELD_MS = 60_000
const done = openSync(process.env.PEERS_DONE, 'a')

async function doJob (job) {
  const stamp = Buffer.alloc(8)
  stamp.writeBigInt64LE(process.hrtime.bigint())
  appendFileSync(done, stamp)
  if (job.data.message === 'hold') await setTimeout(HELD_MS)
}

const connection = { url: process.env.PEERS_STORE_URL, maxRetriesPerRequest: null }
new Worker('jobs', doJob, { connection, concurrency: Number(process.argv[2]) })
