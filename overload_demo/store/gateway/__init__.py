"""The Upstash REST protocol in front of one Redis server. Read first: ``endpoint``, ``commands``, ``upstream``."""
