"""The ingress: only enqueues, and answers 202 once the store has committed the job."""
