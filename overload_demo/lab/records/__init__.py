"""What came of a run, read from its files; nothing here starts anything."""
