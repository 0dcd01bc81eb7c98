"""A container's cgroup: its place in the hierarchy, its limits, its permitted devices."""
