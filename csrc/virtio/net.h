/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * net.h: a network device (virtio 1.3, 5.1) in front of a socket whose messages are frames: packet(7), SOCK_RAW, with
 * PACKET_VNET_HDR, so that a struct virtio_net_hdr is before each frame.
 */
#ifndef MC_VIRTIO_NET_H
#define MC_VIRTIO_NET_H

#include <linux/if_ether.h>
#include <stdint.h>

#include "virtio/memory.h"
#include "virtio/mmio.h"

struct mc_virtio_net;

/* `socket` stays the caller's, and outlives the device; `mac` and `mtu` are those of its interface. NULL: errno says
 * why. */
struct mc_virtio_net *mc_virtio_net_new(const struct mc_memory *memory, int socket, const uint8_t mac[ETH_ALEN],
					uint16_t mtu);

/* Its registers. The caller sets `irq` and `alarm` before mc_virtio_net_start. */
struct mc_virtio *mc_virtio_net_virtio(struct mc_virtio_net *device);

/* Starts its threads. Returns 0, or -errno: none runs. */
int mc_virtio_net_start(struct mc_virtio_net *device);

/* Ends its threads. Registers may be accessed meanwhile and after it. */
void mc_virtio_net_stop(struct mc_virtio_net *device);

/* Stops it. No virtual CPU may access it any more. */
void mc_virtio_net_free(struct mc_virtio_net *device);

#endif
