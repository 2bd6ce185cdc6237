"""Students' answers, a notebook a module: WRONG ones with the hint each must get, RIGHT ones, and NOT_DONE ones."""
