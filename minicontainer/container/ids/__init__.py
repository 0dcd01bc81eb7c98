"""A container's user and group ids: ranges for root's containers, id maps, ID-mapped mounts, users by name."""
