"""Read these first: one promise a test, kept against real processes and real kills."""
