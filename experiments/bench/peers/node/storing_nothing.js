// Fastify that stores nothing: the bound of an API in Node.
const { randomUUID } = require('node:crypto')
require('./app')(async () => randomUUID().replaceAll('-', ''), async () => 'unknown')
