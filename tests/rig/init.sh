#!/bin/busybox sh
# First program of the rig's initramfs: the host's files (9p, read-only) under a tmpfs overlay become the root.
# /m holds the modules that this needs, in order; /m2 the others, loaded meanwhile.
B=/bin/busybox
$B mount -t proc proc /proc
for word in $($B cat /proc/cmdline); do
	case $word in rig.writes=*) writes=${word#rig.writes=} ;; esac
done
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs devtmpfs /dev
for module in /m/*; do $B insmod "$module" 2>/dev/null; done
(
	for module in /m2/*; do $B insmod "$module"; done 2>/dev/null
	: >/modules.loaded
) &
options=trans=virtio,version=9p2000.L,msize=524288
$B mount -t 9p -o $options,ro,cache=loose rigroot /lower || $B poweroff -f
$B mount -t tmpfs -o "size=${writes}m,mode=755" up /up
$B mkdir /up/u /up/w
$B mount -t overlay -o lowerdir=/lower,upperdir=/up/u,workdir=/up/w rigroot /new || $B poweroff -f
for dir in proc sys dev; do $B mount --move /$dir /new/$dir; done
$B mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /new/run
$B mkdir -p /new/run/rig
$B cp $B /new/run/busybox
$B mount -t 9p -o $options,cache=none rigctl /new/run/rig
while [ ! -e /modules.loaded ]; do $B usleep 5000; done
exec $B switch_root /new /run/busybox sh /run/rig/setup.sh
