# %% 05.age
watch = "oldest age"

# %% 05.bound
max_jobs = age_s * drain_per_s

# %% 05.retry_after
import random


def wait_before_retry(status, headers, attempt):
    if status not in (429, 503):
        return None
    asked_s = float(headers.get("Retry-After") or min(30, 2**attempt))
    return asked_s * random.uniform(1.0, 1.5)


# %% 05.deadline
ends_as = "failed"
