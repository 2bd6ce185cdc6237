// The Fastify app of every Node peer: JSON schemas for the bodies, and the peer's own calls to submit and look up a job.
const fastify = require('fastify')

const MESSAGE = 'Job queued successfully. Poll GET /jobs/{job_id} for status.'
const text = { type: 'string' }
const job = {
  type: 'object',
  required: ['name', 'value', 'message'],
  properties: {
    name: text,
    value: { type: 'number', minimum: -1e15, maximum: 1e15 },
    message: text,
    metadata: { type: 'object' },
    expires_in_s: { type: 'number', exclusiveMinimum: 0 }
  }
}
const accepted = { type: 'object', properties: { status: text, job_id: text, message: text } }
const state = { type: 'object', properties: { status: text, job_id: text } }

// submit(payload) resolves to the job's id, stateOf(id) to its state.
module.exports = (submit, stateOf) => {
  const app = fastify()
  app.post('/jobs', { schema: { body: job, response: { 202: accepted } } }, async (request, reply) => {
    const jobId = `job_${await submit(request.body)}`
    reply.code(202).headers({ Location: `/jobs/${jobId}`, 'Retry-After': '1' })
    return { status: 'accepted', job_id: jobId, message: MESSAGE }
  })
  app.get('/jobs/:id', { schema: { response: { 200: state } } }, async (request, reply) => {
    const status = await stateOf(request.params.id.slice('job_'.length))
    return status === 'unknown' ? reply.code(404).send() : { status, job_id: request.params.id }
  })
  app.listen({ port: Number(process.argv[2]) })
}
