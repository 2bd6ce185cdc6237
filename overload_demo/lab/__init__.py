"""What notebooks and the ``spike`` command import.

Four rooms: ``records`` (what came of a run), ``running`` (what starts and measures one), ``plots`` (its figures) and
``course`` (what teaches: predictions, theory, exercises).
"""
