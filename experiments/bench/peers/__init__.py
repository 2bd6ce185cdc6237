"""The same route and the same empty job through other job queues for Python: how fast jobs are taken in and get done.

``with_*`` are the peers, each as its own documentation shows it: a FastAPI app and a worker. ``libraries`` says how
each is started and what it promises, ``environments`` finds where it is installed, ``processes`` starts and ends
everything, ``measure`` measures, ``comparison`` and ``figure`` are what is left behind.
"""
