"""The Upstash REST contract in front of a Redis server."""
