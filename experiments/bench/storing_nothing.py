"""What acceptance is compared with: a FastAPI endpoint with the models of ``POST /jobs`` that stores nothing."""

from fastapi import FastAPI, Response

from overload_demo.api.models import ACCEPTED_MESSAGE, Accepted
from overload_demo.jobs import JobRequest, new_job_id

app = FastAPI()


@app.post("/jobs", status_code=202, response_model=Accepted)
async def post_job(job: JobRequest, response: Response) -> Accepted:
    """Validate, answer, forget."""
    job_id = new_job_id()
    response.headers["Location"] = f"/jobs/{job_id}"
    response.headers["Retry-After"] = "1"
    return Accepted(status="accepted", job_id=job_id, message=ACCEPTED_MESSAGE)
