"""Connects a container to a network: by a veth on a bridge, by a user-space network, or to another container's."""
