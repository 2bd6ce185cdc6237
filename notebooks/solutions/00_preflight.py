# %% 00.first_job
answer = (await client.get(f"/jobs/{job_id}")).json()
# %% 00.accepted
certain = "stored"
# %% 00.limit
first_limit = report.first_limit()
