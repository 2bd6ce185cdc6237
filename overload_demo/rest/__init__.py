"""The REST transport to a store: client, loopback transport, error mapping."""
