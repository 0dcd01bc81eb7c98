"""Containers: a spec is compiled to a plan, which creates namespaces, a cgroup and the process in them."""
