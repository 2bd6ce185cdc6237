"""Solutions of 04, the spike absorbed: what goes before the check of each exercise."""

# %% 04.hours
hours = 100_000 * 2.0 / 3600

# %% 04.drain_time
series = result.series
peak_at_s = series.sampled_at_s[series.queue_depth.index(max(series.queue_depth))]
drain_time_s = result.seconds_to_empty - peak_at_s


# %% 04.reconcile
def lost(accepted_ids, ids_with_effect):
    return len(accepted_ids - ids_with_effect)


# %% 04.where
place = "door"

# %% 04.gil
times_as_fast = pair["process"].drain_rate_per_s / pair["kernel"].drain_rate_per_s
