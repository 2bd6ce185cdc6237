"""Answers of students, right and wrong, a notebook a file: (exercise, answer, facts) and the hint it must get."""
