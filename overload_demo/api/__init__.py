"""The ingress: accepts instantly, only enqueues, answers 202 when the store has committed."""
