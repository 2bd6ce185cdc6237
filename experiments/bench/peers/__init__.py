"""The same route and the same empty job through other job queues for Python: rates of acceptance and of completion.

``with_*`` are the peers, each as its own documentation shows it: a FastAPI app and a worker.
"""
