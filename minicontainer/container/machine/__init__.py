"""``isolation="kvm"``: the container's program is the monitor of a virtual machine, and the user's program runs inside.

Theory of operation. A spec is compiled twice. The *outer* container has ROOTFS, the volumes, the limits and the ids of
the spec, and executes csrc/vmm, which serves its root directory to a guest by virtio-fs. So the monitor has the rights
of a container, and the guest sees owners, read-only mounts and quotas as a container would. The *inner* plan has what
only the guest's kernel can give: /proc, /sys, /dev, tmpfs, host name, user, capabilities, limits, the filter, the exec.
The guest's init (csrc/guest) walks it.
"""
