"""What starts, fires, kills and watches: a stack, a spike, crashes, rising steps, the naive baseline."""
