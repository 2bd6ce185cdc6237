"""Read these first: one promise a test, with real processes and real kills."""
