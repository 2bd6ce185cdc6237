"""The OpenAPI document: descriptions of responses, headers and errors that FastAPI cannot derive from the routes."""

from collections.abc import Set
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from overload_demo.api import problems
from overload_demo.api.intake import MAX_IDEMPOTENCY_KEY
from overload_demo.api.models import Problem
from overload_demo.api.request_context import HEADER

DESCRIPTION = "Accepts jobs at once and stores them durably; a worker runs them later. Poll a job for its result."
SCHEME = "apiKey"
_PROBLEM = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _retry_after(description: str, *, required: bool = True) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1}
    return {"Retry-After": {"description": description, "required": required, "schema": schema}}


def errors(descriptions: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Describe problem responses by status; 429 and 503 carry ``Retry-After``."""
    described: dict[int | str, dict[str, Any]] = {}
    for status, description in descriptions.items():
        headers = {HEADER: {"description": "the request's id, generated if it had none", "schema": {"type": "string"}}}
        if status in {429, 503}:
            headers |= _retry_after("seconds until a retry makes sense")
        described[status] = {"description": description, "content": _PROBLEM, "headers": headers}
    return described


ACCEPTED: dict[str, Any] = {
    "description": "the job is in the store",
    "headers": {
        "Location": {"description": "where to poll", "required": True, "schema": {"type": "string"}},
        **_retry_after("seconds until a poll makes sense"),
    },
    "links": {
        "status": {
            "operationId": "get_job",
            "parameters": {"job_id": "$response.body#/job_id"},
            "description": "the state of the job",
        }
    },
}
FOUND: dict[str, Any] = {
    "description": "the state of the job",
    "headers": _retry_after("seconds until the next poll makes sense, while the job is not finished", required=False),
}
IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "the same key and body get the same 202 and job again; the same key with another body is a 422",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY},
}
METRICS: dict[str, Any] = {
    "description": "all metrics, in the format that Accept requests",
    "content": {"application/openmetrics-text": {"schema": {"type": "string"}}},
}


def describe(app: FastAPI, open_paths: Set[str] | None) -> dict[str, Any]:
    """Return the OpenAPI document of ``app``. All paths but ``open_paths`` need an API key; None = no path does."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes, description=DESCRIPTION)
    components = document["components"]
    components["schemas"]["Problem"] = Problem.model_json_schema()
    if open_paths is not None:
        components["securitySchemes"] = {SCHEME: {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            # FastAPI adds a 422 wherever there is a parameter; here any path text is at worst an unknown id.
            if responses.get("422", {}).get("description") == "Validation Error":
                del responses["422"]
            if open_paths is not None and path not in open_paths:
                operation["security"] = [{SCHEME: []}]
                responses["401"] = {
                    "description": "no key, or an unknown key",
                    "headers": {"WWW-Authenticate": {"schema": {"type": "string"}}},
                    "content": _PROBLEM,
                }
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    return document
