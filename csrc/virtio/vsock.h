/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * vsock.h: a socket device (virtio 1.3, 5.10): stream sockets between clients on the host and listeners of the guest,
 * without a kernel module on the host.
 *
 * A client connects to a Unix socket, sends "CONNECT PORT\n" with a decimal port of the guest, and gets "OK HOSTPORT\n"
 * when the guest has accepted; then bytes pass as they are, and the end of each direction on its own. Where nobody
 * listens, or the guest has no driver, the socket is closed without an answer. A guest that connects is refused: the
 * device knows no address of the host.
 *
 * Of each connection the device holds MC_VSOCK_ROOM bytes at most, of MC_VSOCK_STREAMS connections; further clients
 * wait until one has ended.
 */
#ifndef MC_VIRTIO_VSOCK_H
#define MC_VIRTIO_VSOCK_H

#include "virtio/memory.h"
#include "virtio/mmio.h"

#define MC_VSOCK_STREAMS 256
#define MC_VSOCK_ROOM 65536
#define MC_VSOCK_CID 3 /* the guest's address; 0 to 2 are reserved (5.10.4) */

struct mc_vsock;

/* `listener`: a listening Unix stream socket, nonblocking; the device's from now on. NULL: errno says why, and it is
 * the caller's still. */
struct mc_vsock *mc_vsock_new(const struct mc_memory *memory, int listener);

/* Its registers. The caller sets `irq` and `alarm` before mc_vsock_start. */
struct mc_virtio *mc_vsock_virtio(struct mc_vsock *vsock);

/* Starts its thread. Returns 0, or -errno: it does not run. */
int mc_vsock_start(struct mc_vsock *vsock);

/* Ends its thread. Registers may be accessed meanwhile and after it. */
void mc_vsock_stop(struct mc_vsock *vsock);

/* Stops it and closes its connections. No virtual CPU may access it any more. */
void mc_vsock_free(struct mc_vsock *vsock);

#endif
