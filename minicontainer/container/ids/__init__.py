"""Whose ids a container has: ranges of root's, maps of a user namespace, ID-mapped mounts, users by name."""
