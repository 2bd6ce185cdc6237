# %% 01.capacity
capacity = 1 / delay_s
# %% 01.error_class
ended = max(steps[4].outcomes, key=steps[4].outcomes.get)
# %% 01.wasted
share = (steps[4].completed - steps[4].answered) / steps[4].completed
# %% 01.threads
spike = {run.variant: run.summary.accepted for run in runs if run.shape == "spike"}
why, times = "no scarce resource", spike["def-no-slot"] / spike["def-slot"]
