"""Solutions of 04, the spike absorbed: what goes before the check of each exercise."""

# %% 04.hours
hours = 100_000 * 2.0 / 3600

# %% 04.drain_time
drain_time_s = result.peak_queue_depth / result.drain_rate_per_s


# %% 04.reconcile
def lost(accepted_ids, ids_with_effect):
    return len(accepted_ids - ids_with_effect)


# %% 04.where
place = "door"

# %% 04.gil
times_as_fast = apart.drain_rate_per_s / result.drain_rate_per_s
