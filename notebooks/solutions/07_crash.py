# %% 07.duplicates
most_twice = kills * batch_s / job_s


# %% 07.idempotent
def charge(ledger, job_id, amount):
    ledger[job_id] = amount


# %% 07.lease
lease_s = 20

# %% 07.promise
promise = "at least once"
