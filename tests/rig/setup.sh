# Second stage of the rig, in the host's files: prepares what a test may expect of a machine, and runs the job.
# /run/rig is the control directory shared with vm.py: `config` (shell variables: release modules output extra reach),
# `job` (a script), and what goes back: `out`, `err`, `status`. Its own tools are busybox's, whatever the host has.
. /run/rig/config
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
for tool in cat chmod chown dd hostname ip ln mkdir mkfifo mknod mount mv poweroff sed setsid sleep sync; do
	alias $tool="/run/busybox $tool"
done

kernel() {
	mkdir -p "/lib/modules/$release"
	mount --bind "$modules" "/lib/modules/$release"
	for module in $extra; do modprobe "$module" || echo "rig: no module $module" >&2; done
	# CONFIG_USER_NS is restricted by a Debian sysctl on some releases.
	for sysctl in net/ipv4/ip_forward kernel/unprivileged_userns_clone; do
		[ ! -e /proc/sys/$sysctl ] || echo 1 >/proc/sys/$sysctl
	done
}

devices() {
	mkdir -p /dev/pts /dev/shm /dev/net
	mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
	mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
	[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
	for stream in 0:stdin 1:stdout 2:stderr; do
		[ -e "/dev/${stream#*:}" ] || ln -s "/proc/self/fd/${stream%:*}" "/dev/${stream#*:}"
	done
	[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
	chmod 666 /dev/net/tun /dev/kvm /dev/fuse
	ip link set lo up
	hostname rig
}

cgroups() {
	mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
	read -r controllers </sys/fs/cgroup/cgroup.controllers
	for name in $controllers; do echo "+$name" >/sys/fs/cgroup/cgroup.subtree_control; done
}

directories() { # /run/disk/tmp: no nosuid or nodev here, it can be an overlay's upper directory, and be ID-mapped
	mkdir -p /run/lock /run/netns /run/disk
	chmod 1777 /run/lock
	mount -t ext4 /dev/vda /run/disk
	mkdir -p /run/disk/tmp
	chmod 1777 /run/disk /run/disk/tmp
	if [ -n "$output" ]; then
		mkdir -p "$output"
		mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=none rigout "$output"
	fi
}

user() { # `rig`, uid 1000, instead of whom the host may have there; it may read the tree (reach: the way to it)
	sed -i '/^rig:/d; /^[^:]*:[^:]*:1000:/d' /etc/passwd /etc/group
	echo 'rig:x:1000:1000:rig:/home/rig:/bin/sh' >>/etc/passwd
	echo 'rig:x:1000:' >>/etc/group
	{ echo 'rig:*:19000:0:99999:7:::' >>/etc/shadow; } 2>/dev/null
	echo 'rig:100000:65536' | /run/busybox tee /etc/subuid >/etc/subgid
	mkdir -p /home/rig /run/user/1000
	mount -t tmpfs -o mode=755,uid=1000,gid=1000 tmpfs /home/rig
	chmod 700 /run/user/1000
	chown 1000:1000 /run/user/1000
	eval "chmod o+rx $reach"
}

{ kernel; devices; cgroups; directories; user; } 2>>/run/rig/err
ulimit -n 65536
mkfifo /run/o /run/e
cat </run/o >>/run/rig/out & out=$!
cat </run/e >>/run/rig/err & err=$!
read -r begun _ </proc/uptime
: >/run/rig/booted
setsid /run/busybox sh /run/rig/job </dev/null >/run/o 2>/run/e & job=$!
wait $job; status=$?
read -r ended _ </proc/uptime
for _ in 1 2 3 4 5 6 7 8 9 10; do # a daemon may hold the pipes still
	kill -0 $out 2>/dev/null || kill -0 $err 2>/dev/null || break
	sleep 0.05
done
[ -z "$output" ] || sync
echo "$status $begun $ended" >/run/rig/status.tmp
mv /run/rig/status.tmp /run/rig/status
printf '\0' | dd of=/dev/port bs=1 seek=1281 conv=notrunc 2>/dev/null # 0x501, isa-debug-exit: QEMU ends at once
poweroff -f
