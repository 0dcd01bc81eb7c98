/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * devices.c: the devices of the machine on virtio-mmio, each with a page of registers and an interrupt of its own.
 * What a driver writes to QueueNotify goes to the device's eventfd inside KVM, and the device's interrupts go to the
 * guest through irqfd: neither stops a virtual CPU.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/kvm.h>
#include <net/if.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/balloon.h"
#include "virtio/block.h"
#include "virtio/fs.h"
#include "virtio/fs/fs.h"
#include "virtio/mmio.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"
#include "virtio/worker.h"
#include "vmm/vmm.h"

#define QUEUE_NOTIFY 0x50 /* virtio 1.3, 4.2.2 */
#define TAG "root"
#define FIRST_OTHER 3

static int event(struct mc_vmm *vmm)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		mc_vmm_fail(vmm, -errno, "eventfd()");
	return fd;
}

static void connect_interrupt(struct mc_vmm *vmm, struct mc_virtio *device, uint32_t gsi)
{
	struct kvm_irqfd irqfd = { .gsi = gsi };
	int r;

	device->irq = event(vmm);
	device->alarm = vmm->alarm;
	irqfd.fd = (uint32_t)device->irq;
	r = mc_ioctl(vmm->vm, KVM_IRQFD, &irqfd);
	if (r < 0)
		mc_vmm_fail(vmm, r, "KVM_IRQFD(gsi %u)", gsi);
}

static void connect_queues(struct mc_vmm *vmm, const struct mc_virtio *device, uint64_t address)
{
	for (uint32_t queue = 0; queue < device->type->nqueues; queue++) {
		struct kvm_ioeventfd notify = {
			.datamatch = queue, .addr = address + QUEUE_NOTIFY, .len = 4, .fd = device->kicks[queue],
			.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
		};
		int r = mc_ioctl(vmm->vm, KVM_IOEVENTFD, &notify);

		if (r < 0)
			mc_vmm_fail(vmm, r, "KVM_IOEVENTFD(%#llx)", (unsigned long long)notify.addr);
	}
}

static void connect_device(struct mc_vmm *vmm, uint32_t number)
{
	connect_interrupt(vmm, vmm->devices[number], vmm->machine->irq + number);
	connect_queues(vmm, vmm->devices[number], vmm->machine->devices + number * MC_VMM_DEVICE_SIZE);
}

static int opened(struct mc_vmm *vmm, int at, const char *path, int flags)
{
	int fd = openat(at, path, flags | O_CLOEXEC);

	if (fd < 0)
		mc_vmm_fail(vmm, -errno, "openat(%s)", path);
	return fd;
}

/* Moves a descriptor to a number above 2. Were a stream just closed, the next file that the guest opens would have its
 * number. What takes its place can be neither read nor written. */
static int moved(struct mc_vmm *vmm, int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_OTHER), none = opened(vmm, AT_FDCWD, "/", O_PATH | O_DIRECTORY);

	if (copy < 0 || dup3(none, fd, O_CLOEXEC) < 0 || close(none) < 0)
		mc_vmm_fail(vmm, -errno, "dup3(%d)", fd);
	return copy;
}

/* ---- each kind: the device's registers; its threads start when its interrupt is connected */

struct made {
	struct mc_virtio *virtio;
	void *device;
};

static struct made make_console(struct mc_vmm *vmm, int given)
{
	static const int stream_of[] = { MC_PORT_STDIN, MC_PORT_STDOUT, MC_PORT_STDERR };
	int control[2], fds[MC_PORTS];

	(void)given;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) < 0)
		mc_vmm_fail(vmm, -errno, "socketpair()");
	vmm->control = control[0];
	if (vmm->has_terminal)
		vmm->terminal = fcntl(0, F_DUPFD_CLOEXEC, FIRST_OTHER);
	for (int stream = 0; stream < 3; stream++)
		fds[stream_of[stream]] = moved(vmm, stream);
	fds[MC_PORT_CONTROL] = control[1];
	vmm->console = mc_console_new(&vmm->memory, fds);
	if (!vmm->console)
		mc_vmm_fail(vmm, -errno, "the console");
	return (struct made){ mc_console_virtio(vmm->console), vmm->console };
}

static int start_console(void *device)
{
	return mc_console_start(device);
}

static struct made make_files(struct mc_vmm *vmm, int given)
{
	int root = opened(vmm, AT_FDCWD, "/", O_PATH | O_DIRECTORY);
	int descriptors = opened(vmm, MC_VMM_PROC_FD, "self/fd", O_PATH | O_DIRECTORY);
	struct mc_fs *files = mc_fs_new(root, descriptors, 0);
	struct mc_virtio_fs *fs;

	(void)given;
	if (!files)
		mc_vmm_fail(vmm, -errno, "the file server");
	vmm->scarce = event(vmm);
	mc_fs_tell_scarce(files, vmm->scarce);
	fs = mc_virtio_fs_new(&vmm->memory, files, TAG);
	if (!fs)
		mc_vmm_fail(vmm, -errno, "the file system's device");
	return (struct made){ mc_virtio_fs_virtio(fs), fs };
}

static int start_files(void *device)
{
	return mc_virtio_fs_start(device);
}

static struct made make_balloon(struct mc_vmm *vmm, int given)
{
	struct mc_balloon *balloon = mc_balloon_new(&vmm->memory);

	(void)given;
	if (!balloon)
		mc_vmm_fail(vmm, -errno, "the balloon");
	return (struct made){ mc_balloon_virtio(balloon), balloon };
}

static int start_balloon(void *device)
{
	return mc_balloon_start(device);
}

static struct made make_rng(struct mc_vmm *vmm, int given)
{
	struct mc_rng *rng = mc_rng_new(&vmm->memory);

	(void)given;
	if (!rng)
		mc_vmm_fail(vmm, -errno, "the entropy device");
	return (struct made){ mc_rng_virtio(rng), rng };
}

static int start_rng(void *device)
{
	return mc_rng_start(device);
}

static struct made make_block(struct mc_vmm *vmm, int given)
{
	struct mc_block *block = mc_block_new(&vmm->memory, given, "minicontainer");

	if (!block)
		mc_vmm_fail(vmm, -errno, "the block device");
	return (struct made){ mc_block_virtio(block), block };
}

static int start_block(void *device)
{
	return mc_block_start(device);
}

/* The address and MTU of the interface that a packet(7) socket is bound to. */
static struct made make_network(struct mc_vmm *vmm, int given)
{
	struct sockaddr_ll bound = { 0 };
	socklen_t size = sizeof(bound);
	struct ifreq request = { 0 };
	struct mc_virtio_net *net;

	if (getsockname(given, (struct sockaddr *)&bound, &size) < 0)
		mc_vmm_fail(vmm, -errno, "getsockname(%d)", given);
	request.ifr_ifindex = bound.sll_ifindex;
	if (ioctl(given, SIOCGIFNAME, &request) < 0 || ioctl(given, SIOCGIFMTU, &request) < 0)
		mc_vmm_fail(vmm, -errno, "the interface of a packet socket");
	net = mc_virtio_net_new(&vmm->memory, given, bound.sll_addr, (uint16_t)request.ifr_mtu);
	if (!net)
		mc_vmm_fail(vmm, -errno, "the network device");
	return (struct made){ mc_virtio_net_virtio(net), net };
}

static int start_network(void *device)
{
	return mc_virtio_net_start(device);
}

static struct made make_vsock(struct mc_vmm *vmm, int given)
{
	struct mc_vsock *vsock = mc_vsock_new(&vmm->memory, given);

	if (!vsock)
		mc_vmm_fail(vmm, -errno, "the socket device");
	return (struct made){ mc_vsock_virtio(vsock), vsock };
}

static int start_vsock(void *device)
{
	return mc_vsock_start(device);
}

static const struct {
	struct made (*make)(struct mc_vmm *vmm, int given); /* the descriptor of what it serves, if it serves one */
	int (*start)(void *device);
	enum mc_vmm_role role;  /* of its threads */
} KINDS[] = {
	[MC_DEVICE_CONSOLE] = { make_console, start_console },
	[MC_DEVICE_FILE_SYSTEM] = { make_files, start_files, MC_ROLE_FILES },
	[MC_DEVICE_BALLOON] = { make_balloon, start_balloon },
	[MC_DEVICE_RNG] = { make_rng, start_rng },
	[MC_DEVICE_BLOCK] = { make_block, start_block, MC_ROLE_DISK },
	[MC_DEVICE_NETWORK] = { make_network, start_network, MC_ROLE_NETWORK },
	[MC_DEVICE_VSOCK] = { make_vsock, start_vsock, MC_ROLE_VSOCK },
};

static void begin_thread(void *vmm, int role)
{
	mc_vmm_confine(vmm, (enum mc_vmm_role)role);
}

static void make_device(struct mc_vmm *vmm, uint32_t number)
{
	const uint32_t kind = vmm->machine->kinds[number];
	struct made made;
	int r;

	if (kind >= sizeof(KINDS) / sizeof(KINDS[0]))
		mc_vmm_fail(vmm, -EINVAL, "machine: device %u of kind %u", number, kind);
	made = KINDS[kind].make(vmm, MC_VMM_GIVEN_FD + (int)number);
	vmm->devices[number] = made.virtio;
	connect_device(vmm, number);
	mc_worker_begin_with(begin_thread, vmm, (int)KINDS[kind].role);
	r = KINDS[kind].start(made.device);
	if (r < 0)
		mc_vmm_fail(vmm, r, "the threads of a device: %s", made.virtio->type->name);
}

void mc_vmm_make_devices(struct mc_vmm *vmm)
{
	vmm->alarm = event(vmm);
	if (vmm->machine->ndevices > MC_VMM_DEVICES)
		mc_vmm_fail(vmm, -EINVAL, "machine: %u devices", vmm->machine->ndevices);
	for (uint32_t i = 0; i < vmm->machine->ndevices; i++)
		make_device(vmm, i);
}

static struct mc_virtio *at(struct mc_vmm *vmm, uint64_t address, uint64_t *offset)
{
	uint64_t from = address - vmm->machine->devices;

	*offset = from % MC_VMM_DEVICE_SIZE;
	return from / MC_VMM_DEVICE_SIZE < vmm->machine->ndevices ? vmm->devices[from / MC_VMM_DEVICE_SIZE] : NULL;
}

uint64_t mc_vmm_device_read(struct mc_vmm *vmm, uint64_t address, uint32_t size)
{
	uint64_t offset;
	struct mc_virtio *device = at(vmm, address, &offset);

	return device ? mc_virtio_read(device, offset, size) : ~0ull;
}

void mc_vmm_device_write(struct mc_vmm *vmm, uint64_t address, uint32_t size, uint64_t value)
{
	uint64_t offset;
	struct mc_virtio *device = at(vmm, address, &offset);

	if (device)
		mc_virtio_write(device, offset, size, (uint32_t)value);
}
