/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * console.h: a console device with four ports (virtio 1.3, 5.3, VIRTIO_CONSOLE_F_MULTIPORT): the streams of a program
 * in the guest, and a control channel. None is a console; the guest finds them by their names.
 *
 *     port  name     descriptor                          bytes go
 *     0     control  a connected stream socket           both ways
 *     1     stdin    to be read                          to the guest
 *     2, 3  stdout, stderr  to be written                from the guest
 *
 * Descriptors of any kind will do, blocking or not, and their flags stay as they are: others may use the same open
 * file (a terminal, a pipe), so O_NONBLOCK can't be set. Each direction of a port has a thread that blocks in its
 * stead: a reader of stdout that does not read holds up stdout alone.
 *
 * Bytes pass as they are. The host is read only while the guest has the port open and has a buffer for what is read;
 * the guest gets a buffer back when it is written completely.
 *
 * A port ends on one side, and then on the other:
 * - the host is at its end (of input), or fails or has gone (EPIPE): the guest gets what was read, then PORT_OPEN 0,
 *   and what it still sends is dropped. mc_console_error tells why. (In Linux a program's read gives 0 then; its write
 *   blocks, and poll(2) says POLLHUP.)
 * - the guest closes the port: what it has sent is written, then the descriptor is closed, so that the host sees the
 *   end; and the guest gets PORT_OPEN 0, since nothing opens the port again.
 * What is in the queues when the driver resets the device is lost, as the specification has it (2.4.1). Newer Linux
 * does so when it powers off (virtio_dev_shutdown): a guest must not do that before the host has drained.
 */
#ifndef MC_VIRTIO_CONSOLE_H
#define MC_VIRTIO_CONSOLE_H

#include "virtio/memory.h"
#include "virtio/mmio.h"

enum mc_port_number { MC_PORT_CONTROL, MC_PORT_STDIN, MC_PORT_STDOUT, MC_PORT_STDERR, MC_PORTS };

struct mc_console;

/* `fds`: by port; -1: the port is closed. They are the console's from now on. NULL: errno says why, and they are the
 * caller's still. */
struct mc_console *mc_console_new(const struct mc_memory *memory, const int fds[MC_PORTS]);

/* Its registers. The caller sets `irq` and `alarm` before mc_console_start. */
struct mc_virtio *mc_console_virtio(struct mc_console *console);

/* Starts its threads. Returns 0, or -errno: none runs. */
int mc_console_start(struct mc_console *console);

/* Waits until all that the guest has put into the queues of stdout and stderr is written, or cannot be any more (the
 * port is closed, the device was reset or is broken). `timeout_ms` below 0: for ever. Returns 0, -ETIMEDOUT, or
 * -ECANCELED: the console was stopped. */
int mc_console_drain(struct mc_console *console, int timeout_ms);

/* Why a port was closed by the host's side: an errno value; 0: it was not, or by an end of input. */
int mc_console_error(struct mc_console *console, enum mc_port_number port);

/* Ends its threads, also those that wait for the host; what they have not written is lost. Registers may be accessed
 * meanwhile and after it. */
void mc_console_stop(struct mc_console *console);

/* Stops it and closes its descriptors. No virtual CPU may access it any more. */
void mc_console_free(struct mc_console *console);

#endif
