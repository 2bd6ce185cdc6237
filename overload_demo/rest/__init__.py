"""The REST client of a store, its transport for this machine, and the meaning of error replies."""
