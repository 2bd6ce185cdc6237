# %% 03.correct
def correct(times_s, interval_s):
    found = []
    for time_s in times_s:
        found.append(time_s)
        left_out_s = time_s - interval_s
        while left_out_s >= interval_s:
            found.append(left_out_s)
            left_out_s -= interval_s
    return found


# %% 03.page
share = 1 - 0.99**page_requests

# %% 03.step
cause = "operating system"

# %% 03.invalid
which, why = "hurried", "lag"

# %% 03.pairs
fewest = 6

# %% 03.claim
from overload_demo.lab import sign_test

winner = "B is faster" if pairs.b_wins > len(pairs.ratios) / 2 else "A is faster"
claim = winner if sign_test(pairs.b_wins, len(pairs.ratios)) < 0.05 else "not shown"

# %% 03.knee
kept = 0
for step in steps:
    if step.summary.response_time.p99_s > promise_s:
        break
    kept = step.offered_per_s
highest_per_s = kept
