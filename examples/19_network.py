"""19. A web server on a network: another container reaches it by name, the host by a published port.

Run: python examples/19_network.py ROOTFS
"""

import os
import subprocess
import sys

import minicontainer as mc
from minicontainer.network import networks

NAME = f"example-{os.getpid()}"
SERVE = "echo hello from the web > /dev/shm/index.html; exec httpd -f -p 80 -h /dev/shm"

networks.create(NAME)
web = mc.Container.start(
    ["/bin/sh", "-c", SERVE], rootfs=sys.argv[1], name=f"web-{os.getpid()}", network=NAME, ports=mc.Port.option("80")
)
try:
    lease = web.lease()
    assert lease is not None
    (port,) = {published.host for published in lease.ports}  # the same port number for IPv4 and IPv6
    ask = f"until wget -qO- http://{web.name}/; do sleep 0.1; done"
    inside = mc.run(["/bin/sh", "-c", ask], rootfs=sys.argv[1], network=NAME, capture_output=True)
    print("inside:", inside.stdout)
    command = ["busybox", "wget", "-qO-", f"http://127.0.0.1:{port}/"]
    print("from the host:", subprocess.run(command, capture_output=True, check=True).stdout)
    for event in web.timeline or ():
        if event.phase == "network":
            print(f"{event.seconds * 1e6:7.1f} us  {event.side:6}  {event.call[:90]}")
finally:
    web.remove(force=True)
    networks.remove(NAME)

# expect: inside: b'hello from the web\\n'
# expect: from the host: b'hello from the web\\n'
# expect: RTM_NEWLINK veth
# expect: NFT_MSG_NEWSETELEM published
# expect: child .*RTM_NEWADDR eth0
