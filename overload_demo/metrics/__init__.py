"""What a process counts for Prometheus: numbers in shared memory, put into the library's form when somebody scrapes.

A scrape of an API of several processes meets one of them, and has to tell of all, also of those that have died. The
library's multiprocess mode can do that, with two mappings, a lock and a file a process and kind. Measured on an
accepted request, which moves one histogram and one counter (2 cores, Python 3.11, prometheus-client 0.26): 2.8 µs in
that mode, 5 % of a request; 1.3 µs in its ordinary mode, which sees its own process only; 0.3 µs as plain numbers in
a row of memory that the parent owns, and 0.1 µs when they are put there ten times a second, many at once. So we count
in :mod:`rows`, declare in :mod:`families`, and leave the formats to the library. A process that is killed takes at most
the last tenth of a second of its counts with it.
"""
