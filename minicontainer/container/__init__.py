"""The first isolation model: a spec becomes namespaces, a cgroup and a plan, and a process that lives in them."""
