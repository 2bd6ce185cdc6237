"""Programs that measure, and what they measured (``results/``); they need a checkout, and the package needs none."""
