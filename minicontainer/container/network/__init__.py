"""How a container gets onto a network: a veth on a bridge, a user-space network, another container's."""
