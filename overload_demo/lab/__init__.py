"""What notebooks and the ``spike`` command import: a stack that starts and stops cleanly, experiments, figures."""
