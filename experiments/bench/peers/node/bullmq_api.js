// BullMQ behind Fastify: a queue with all defaults.
const { Queue } = require('bullmq')
const serve = require('./app')

const queue = new Queue('jobs', { connection: { url: process.env.PEERS_STORE_URL } })
serve(async (payload) => (await queue.add('job', payload)).id, (id) => queue.getJobState(id))
