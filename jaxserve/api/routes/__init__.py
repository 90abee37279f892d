"""The HTTP routes, each a thin path through the room: read, lower, submit, answer."""
