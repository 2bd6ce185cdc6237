"""What happened, written down by everybody who took part, and a checker that says what must not have."""
