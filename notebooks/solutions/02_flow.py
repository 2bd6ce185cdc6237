# %% 02.peak_depth
sale = {"arrival_per_s": 800, "drain_per_s": 300, "spike_s": 30}
peak_orders = (800 - 300) * 30

# %% 02.seconds_to_empty
empty_after_s = 30 + peak_orders / 300

# %% 02.wait
longest_wait_s = peak_orders / 300

# %% 02.half
peak_with_fast_worker = (800 - 2 * 300) * 30

# %% 02.little
accepted_s, done_s = log.accepted_s, log.done_s
span_s = done_s.max() - accepted_s.min()
mean_jobs = accepted_s.size / span_s * (done_s - accepted_s).mean()
