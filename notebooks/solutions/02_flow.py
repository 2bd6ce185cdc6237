# %% 02.peak_depth
peak_orders = (800 - 300) * 30

# %% 02.seconds_to_empty
empty_after_s = 30 + peak_orders / 300

# %% 02.wait
longest_wait_s = peak_orders / 300

# %% 02.half
peak_with_fast_worker = (800 - 2 * 300) * 30

# %% 02.little
span_s = done_s.max() - accepted_s.min()
mean_jobs = accepted_s.size / span_s * (done_s - accepted_s).mean()
