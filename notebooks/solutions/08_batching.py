"""Solutions of 08, Upstash and batching: what goes before the check of each exercise."""

# %% 08.batch
import math

batch = math.ceil(rate_per_s * far[-1].call_s / 2)

# %% 08.quota
jobs_in_a_month = report.FREE_COMMANDS_PER_MONTH / bill.commands_per_job[1]

# %% 08.idle
days = report.FREE_COMMANDS_PER_MONTH / (24 * 60 * 60)

# %% 08.durability
promise = "acknowledged by the store"
