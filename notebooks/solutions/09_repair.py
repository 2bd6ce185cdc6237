# %% 09.pop
from overload_demo.lab import require_checkout

solved = require_checkout() / "notebooks" / "solutions" / "queues"
repaired = solved / "1_pop.py"

# %% 09.acknowledge
repaired = solved / "2_acknowledge.py"

# %% 09.fence
repaired = solved / "3_fence.py"

# %% 09.idempotent
repaired = solved / "4_idempotent.py"

# %% 09.bound
repaired = solved / "5_bound.py"

# %% 09.budget
repaired = solved / "6_budget.py"

# %% 09.cure
cure = "a script that looks and writes"

# %% 09.workers
workers = 7
facts = {"arrival_per_s": arrival_per_s, "worker_per_s": worker_per_s, "aim_s": aim_s}

# %% 09.sale_bound
bound = workers * worker_per_s * aim_s
facts |= {"done_within_s": done_within_s, "sale_s": sale_s * scale, "scale": scale}

# %% 09.retry
policy = RetryPolicy(attempts=4, budget=0.2)
