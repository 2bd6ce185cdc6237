"""The embedded store: one Redis server per data directory behind a gateway that speaks the Upstash REST protocol."""
