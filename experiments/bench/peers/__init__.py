"""The same route and the same empty job through other job queues: rates of acceptance and completion, and latencies.

``with_*`` are the peers in Python, each as its own documentation shows it: a FastAPI app and a worker. ``node/`` has
those in Node, behind Fastify.
"""
