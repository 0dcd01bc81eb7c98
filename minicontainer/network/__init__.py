"""Networks: a bridge each, with addresses, names and published ports for who joins it.

Nothing here knows what joins: a container and a virtual machine get the same ``Lease`` (leases.py), and are wired to
the bridge by their own backends.

    networks/.lock              flock(2): shared by who joins, exclusive for who makes or removes a network
    networks/forwarding-N       what net.ipv4.ip_forward was before the first network, in the network namespace N
    networks/NAME/config.json   the network (``Network``)
    networks/NAME/last          the address that was given out last
    networks/NAME/leases/IP     who has that address: locked by its owner (``Lease``)
    networks/NAME/hosts/names   /etc/hosts of all that are on it (hosts.py); hosts/IP: of one with names of its own
"""
