# %% 06.busy
busy_with = "abandoned jobs"

# %% 06.critical
critical_per_s = drain_per_s / (1 + retries)

# %% 06.slow
slow_s = too_many / (1 / work_s - slow.plan.per_s * (1 + retries))

# %% 06.backoff
why = "as many attempts"


# %% 06.bucket
def take(tokens, requests):
    tokens = min(burst, tokens + ratio * requests)
    if tokens >= 1:
        return True, tokens - 1
    return False, tokens


# %% 06.deadline
deadline_s = 0.6 * timeout_s
