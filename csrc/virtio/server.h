/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * server.h: threads that answer the chains of a device's queues, where each chain is a request with its reply.
 *
 * Theory of operation. A thread takes a chain of its queue under the device's lock, has it answered without the lock,
 * and gives it back. Where a queue has several threads, requests do not wait for a slow one, and are answered in any
 * order. A notification wakes one of them; it wakes another one if there is more to do.
 *
 * Threads write to buffers of the guest without the lock: a reset waits until all have done that.
 */
#ifndef MC_VIRTIO_SERVER_H
#define MC_VIRTIO_SERVER_H

#include <pthread.h>
#include <stdint.h>

#include "virtio/memory.h"
#include "virtio/mmio.h"

#define MC_SERVER_THREADS 5

struct mc_server;

/* Answers a chain, from any thread: `written` bytes of its device-writable part. Returns NULL, or the rule that the
 * driver has broken so that no answer is possible, a literal: the device then needs a reset. */
typedef const char *mc_server_answer(struct mc_server *server, const struct mc_chain *chain, uint32_t *written);

struct mc_server_thread {
	struct mc_server *server;
	struct mc_ring *ring;
	int kick;
	int epoll;              /* of `kick` and the server's `stop` */
	int has_thread;
	pthread_t thread;
	struct mc_chain chain;
};

/* The beginning of a device's structure. */
struct mc_server {
	struct mc_virtio virtio;
	mc_server_answer *answer;
	int stop;               /* eventfd: readable from mc_server_stop on */
	int stopping;           /* atomic */
	uint32_t busy;          /* chains that are being answered */
	pthread_cond_t idle;    /* there are none */
	uint32_t nthreads;
	struct mc_server_thread threads[MC_SERVER_THREADS];
};

/* `threads`: how many each queue has; MC_SERVER_THREADS in all at most. `type` has mc_server_quiesce. Returns 0, or
 * -errno: nothing is left to be ended. */
int mc_server_init(struct mc_server *server, const struct mc_virtio_type *type, const struct mc_memory *memory,
		   const void *config, const uint32_t *threads, mc_server_answer *answers);

/* mc_virtio_type.quiesce */
void mc_server_quiesce(struct mc_virtio *virtio);

/* Starts the threads. Returns 0, or -errno: none runs. */
int mc_server_start(struct mc_server *server);

/* Ends the threads, when they have answered the requests that they have begun. Registers may be accessed meanwhile and
 * after it. */
void mc_server_stop(struct mc_server *server);

/* Stops it. No virtual CPU may access the device any more. */
void mc_server_end(struct mc_server *server);

#endif
