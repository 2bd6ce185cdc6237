"""The naive baseline: an API that does the work inside the request, three ways (see ``app``)."""
