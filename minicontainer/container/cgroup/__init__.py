"""A container's cgroup: where it is, its limits, the devices that may be used."""
