"""1. One namespace by hand: a process with its own host name (unshare(2), uts_namespaces(7)).

Run as root: python examples/01_unshare.py
"""

import os

from minicontainer import linux

pid = os.fork()
if pid == 0:
    linux.unshare("CLONE_NEWUTS")  # from here on this process has its own copy of the host name
    linux.sethostname("box")
    print("inside:", os.uname().nodename, os.readlink("/proc/self/ns/uts"), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print("outside is unchanged:", os.uname().nodename != "box")

# expect: inside: box uts:\[\d+\]
# expect: outside is unchanged: True
