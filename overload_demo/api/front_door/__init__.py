"""The front door: listening sockets, the connection gate, the HTTP protocol and the parent of several processes."""
