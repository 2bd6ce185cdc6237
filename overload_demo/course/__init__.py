"""What teaches: the load level, predictions, theory, exercises and their judges."""
