# %% 01.capacity
capacity = 1 / delay_s
# %% 01.error_class
ended = max(steps[4].outcomes, key=steps[4].outcomes.get)
# %% 01.wasted
step = steps[4]
share = (step.completed - step.answered) / step.completed
# %% 01.threads
spike = {run.variant: run.summary.accepted for run in runs if run.shape == "spike"}
why, times = "no scarce resource", spike["def-no-slot"] / spike["def-slot"]
