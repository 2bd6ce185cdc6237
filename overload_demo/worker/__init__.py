"""The worker: one job at a time, crash-safe. ``python -m overload_demo.worker`` runs one."""

from overload_demo.worker.handler import JobContext
from overload_demo.worker.loop import Worker

__all__ = ["JobContext", "Worker"]
