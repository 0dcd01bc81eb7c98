"""A container's file systems: /dev, /proc, /sys, files of /etc, volumes, and path lookup in ROOTFS before the start."""
