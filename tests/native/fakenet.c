/* A monitor of a machine without one, whose network device is the true one (csrc/virtio/net.c), on the packet socket that
 * the outer plan has opened. In place of a guest a driver (tests/unit/virtio_driver.h) answers whoever asks: ARP, echo
 * requests of ICMP, and any datagram of UDP with the same. Its address is the end of the hardware address. Its machine's
 * data is the number of the socket's descriptor. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_arp.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>

#include "virtio/net.h"
#include "virtio_driver.h"
#include "vmm/vmm.h"

#define BUFFERS 128
#define SIZE 2048
#define HEADER 12

static struct mc_vmm vmm;
static struct driver driver;
static unsigned char own[ETH_ALEN];

void test_fail(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: %s\n", file, line, what);
	_exit(1);
}

static void swap(void *a, void *b, size_t size)
{
	unsigned char kept[16];

	memcpy(kept, a, size);
	memcpy(a, b, size);
	memcpy(b, kept, size);
}

/* Makes the answer of a frame: 1, or 0: it has none. */
static int answer_arp(unsigned char *arp)
{
	if (arp[7] != ARPOP_REQUEST || memcmp(arp + 24, own + 2, 4) != 0)
		return 0;
	arp[7] = ARPOP_REPLY;
	swap(arp + 8, arp + 18, 10);
	memcpy(arp + 8, own, ETH_ALEN);
	return 1;
}

static int answer_ip(unsigned char *packet)
{
	struct iphdr ip;
	unsigned char *content = packet + sizeof(ip);

	memcpy(&ip, packet, sizeof(ip));
	if (memcmp(&ip.daddr, own + 2, 4) != 0)
		return 0;
	swap(packet + 12, packet + 16, 4);
	if (ip.protocol == IPPROTO_UDP) { /* its checksum stays right, or one to be completed */
		swap(content, content + 2, 2);
		return 1;
	}
	if (ip.protocol != IPPROTO_ICMP || content[0] != ICMP_ECHO)
		return 0;
	content[0] = ICMP_ECHOREPLY;
	content[2] = (unsigned char)(content[2] + 8); /* of the checksum, whose other byte gets the carry */
	content[3] = (unsigned char)(content[3] + (content[2] < 8));
	return 1;
}

static int answer(unsigned char *frame)
{
	const unsigned type = (unsigned)(frame[12] << 8 | frame[13]);

	swap(frame, frame + ETH_ALEN, ETH_ALEN);
	memcpy(frame + ETH_ALEN, own, ETH_ALEN);
	return type == ETH_P_ARP ? answer_arp(frame + ETH_HLEN) : type == ETH_P_IP && answer_ip(frame + ETH_HLEN);
}

static void give(uint64_t address)
{
	const struct driver_buffer b = { address, SIZE, 1 };

	CHECK(driver_add(&driver, 0, &b, 1) >= 0);
}

static void serve(uint64_t out)
{
	struct vring_used_elem e = driver_wait(&driver, 0);
	const uint64_t at = driver_desc(&driver, 0, e.id)->addr;
	unsigned char *frame = driver_at(&driver, at, SIZE);
	const struct driver_buffer b = { out, e.len, 0 };

	CHECK(((struct virtio_net_hdr_v1 *)frame)->num_buffers == 1);
	if (answer(frame + HEADER)) {
		memcpy(driver_at(&driver, out, SIZE), frame, SIZE);
		CHECK(driver_add(&driver, 1, &b, 1) >= 0);
		driver_wait(&driver, 1);
	}
	give(at);
}

static void run(int packets)
{
	struct sockaddr_ll bound;
	socklen_t size = sizeof(bound);
	struct mc_virtio_net *net;
	uint64_t in, out;

	CHECK(getsockname(packets, (struct sockaddr *)&bound, &size) == 0);
	memcpy(own, bound.sll_addr, ETH_ALEN);
	driver_memory(&driver, 1 << 20);
	net = mc_virtio_net_new(&driver.memory, packets, own, 1500);
	CHECK(net && mc_virtio_net_start(net) == 0);
	driver_start(&driver, mc_virtio_net_virtio(net));
	in = driver_alloc(&driver, BUFFERS * SIZE);
	out = driver_alloc(&driver, SIZE);
	for (uint64_t i = 0; i < BUFFERS; i++)
		give(in + i * SIZE);
	mc_vmm_report_start(vmm.run);
	for (;;)
		serve(out);
}

int main(void)
{
	char number[16] = "";

	CHECK(pread(MC_VMM_MACHINE_FD, number, sizeof(number) - 1, 0) > 0);
	vmm.run = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, MC_VMM_RUN_FD, 0);
	CHECK(vmm.run->magic == MC_VMM_RUN_MAGIC);
	mc_vmm_reset(vmm.run);
	vmm.run->started = 1;
	vmm.run->started_ns = vmm.run->guest.end_ns = 1;
	run(atoi(number));
}
