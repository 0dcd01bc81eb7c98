"""Networks: a bridge each, with addresses, names and published ports for its members.

This package does not depend on the kind of member: a container and a virtual machine get the same ``Lease``
(leases.py), and each connects its own interface (a veth, a tap device) to the bridge.

    networks/.lock              flock(2): shared for joining, exclusive for creating or removing a network
    networks/forwarding-N       the value of net.ipv4.ip_forward before the first network, in the network namespace N
    networks/NAME/config.json   the network (``Network``)
    networks/NAME/last          the address that was assigned last
    networks/NAME/leases/IP     the lease of that address, locked by its owner (``Lease``)
    networks/NAME/hosts/names   /etc/hosts of the members (hosts.py); hosts/IP: of a member with --add-host
"""
