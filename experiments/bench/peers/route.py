"""What the routes of all peers share: where their Redis is, and what they answer."""

import os

from fastapi import Response

from overload_demo.api.models import ACCEPTED_MESSAGE, Accepted

REDIS_URL = os.environ["PEERS_REDIS_URL"]


def accepted(response: Response, library_id: str) -> Accepted:
    """The answer to ``POST /jobs``; all libraries name their jobs by a UUID, with or without dashes."""
    job_id = f"job_{library_id.replace('-', '')}"
    response.headers["Location"] = f"/jobs/{job_id}"
    response.headers["Retry-After"] = "1"
    return Accepted(status="accepted", job_id=job_id, message=ACCEPTED_MESSAGE)
