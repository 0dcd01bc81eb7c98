/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * serial.c: a 16550A UART (National Semiconductor PC16550D data sheet) whose line is infinitely fast.
 *
 * Theory of operation. Virtual CPUs write and read its registers (mc_serial_write, mc_serial_read), and a thread of the
 * caller's brings input; a lock keeps them apart. What the guest sends is kept in `out`, and goes to a descriptor when
 * a line is whole, the buffer is full, the guest polls for input or the machine pauses; at once where somebody may be
 * waiting for it (`eager`). Where there is no descriptor, a full buffer is the caller's to empty. A descriptor that takes
 * nothing makes the guest wait, as a real line would, and nobody else: output has a lock of its own, and neither lock is
 * taken under the other. Received bytes wait in `in`, which is bounded: the caller brings no more than it takes, or asks
 * for the overrun that a real line would have.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/kvm.h>
#include <linux/serial_reg.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvm/vcpu.h"

#define OUT 8192
#define IN 4096 /* a power of two */

struct mc_serial {
	pthread_mutex_t lock;  /* of all but the output                                             */
	int vm, eager;
	int line;              /* the interrupt line's level */
	uint8_t ier, lcr, mcr, scr, dll, dlm, fifo;
	uint8_t lsr_errors;    /* until LSR is read */
	uint8_t msr_deltas;    /* until MSR is read */
	uint8_t empty_irq;     /* "transmitter empty" is to be told */
	uint32_t in_head, in_tail;

	pthread_mutex_t out_lock;
	int fd;
	int asked;             /* LSR was read since the last byte was sent */
	int owed;              /* of what is held, something should have been written: the guest is to wait for it */
	size_t used;

	uint8_t in[IN];
	char out[OUT];
};

struct mc_serial *mc_serial_new(int fd, int vm, int eager)
{
	struct mc_serial *s = malloc(sizeof(*s));

	if (!s)
		return NULL;
	memset(s, 0, offsetof(struct mc_serial, in)); /* not what it may hold: clearing that would cost more than all else */
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->out_lock, NULL);
	s->fd = fd;
	s->vm = vm;
	s->eager = eager;
	s->dll = 12; /* 9600 baud, as a PC's firmware leaves it */
	return s;
}

void mc_serial_free(struct mc_serial *s)
{
	if (s) {
		pthread_mutex_destroy(&s->out_lock);
		pthread_mutex_destroy(&s->lock);
		free(s);
	}
}

/* Forgets the descriptors, which are about to be closed, and may soon be somebody else's. */
void mc_serial_unplug(struct mc_serial *s)
{
	pthread_mutex_lock(&s->lock);
	s->vm = -1;
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_lock(&s->out_lock);
	s->fd = -1;
	pthread_mutex_unlock(&s->out_lock);
}

/* ---- output */

/* How much can be written without a wait when poll(2) says POLLOUT: to a pipe a page (pipe(7)), to a terminal a byte. */
static size_t piece(int fd)
{
	struct stat status;

	if (fstat(fd, &status) < 0 || S_ISREG(status.st_mode))
		return OUT;
	return S_ISFIFO(status.st_mode) ? PIPE_BUF : 1;
}

/* 0: there is room to write; -EAGAIN (only without `wait`), -EINTR. */
static int room(int fd, int wait)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int n = poll(&p, 1, wait ? -1 : 0);

	return n < 0 ? -errno : n == 0 ? -EAGAIN : 0;
}

/* 0, or -errno with what was not taken still held: -EINTR, -EPIPE ...; -EAGAIN where it is not to wait. */
static int flush(struct mc_serial *s, int wait)
{
	const size_t most = wait ? OUT : piece(s->fd);
	size_t done = 0;
	int r = 0;

	while (s->fd >= 0 && done < s->used && r == 0) {
		size_t left = s->used - done;
		ssize_t n = 0;

		if (!wait)
			r = room(s->fd, 0);
		if (r == 0)
			n = write(s->fd, s->out + done, left < most ? left : most);
		if (n < 0) /* a descriptor that somebody has made O_NONBLOCK is waited for all the same */
			r = errno == EAGAIN ? room(s->fd, wait) : -errno;
		else
			done += (size_t)n;
		if (wait && r == 0 && n >= 0 && (size_t)n < left)
			r = -EINTR; /* a signal came when some had been written */
	}
	memmove(s->out, s->out + done, s->used - done);
	__atomic_store_n(&s->used, s->used - done, __ATOMIC_RELAXED);
	__atomic_store_n(&s->owed, r < 0, __ATOMIC_RELAXED);
	return r;
}

/* 0: taken; 1: taken, and a signal came; -ENOBUFS: the caller is to empty the buffer, and to come again; or what
 * write(2) said. */
static int put(struct mc_serial *s, const char *data, size_t size)
{
	int r = 0;

	if (OUT - s->used < size)
		r = s->fd < 0 ? -ENOBUFS : flush(s, 1);
	if (r < 0)
		return r;
	memcpy(s->out + s->used, data, size);
	__atomic_store_n(&s->used, s->used + size, __ATOMIC_RELAXED);
	s->asked = 0;
	if (s->eager || memchr(data, '\n', size))
		r = flush(s, 1); /* what it could not write is owed */
	return r == -EINTR;
}

int mc_serial_print(struct mc_serial *s, const char *data, size_t size)
{
	int r;

	pthread_mutex_lock(&s->out_lock);
	r = put(s, data, size);
	pthread_mutex_unlock(&s->out_lock);
	return r;
}

int mc_serial_flush(struct mc_serial *s, int wait)
{
	int r;

	pthread_mutex_lock(&s->out_lock);
	r = flush(s, wait);
	pthread_mutex_unlock(&s->out_lock);
	return r;
}

int mc_serial_settle(struct mc_serial *s)
{
	return __atomic_load_n(&s->owed, __ATOMIC_RELAXED) ? mc_serial_flush(s, 1) : 0;
}

/* LSR is read. A guest that reads it again, having sent nothing, waits for input: then let its prompt be seen. */
static void poll_for_input(struct mc_serial *s)
{
	if (__atomic_load_n(&s->used, __ATOMIC_RELAXED) == 0)
		return;
	pthread_mutex_lock(&s->out_lock);
	if (s->asked)
		__atomic_store_n(&s->owed, 1, __ATOMIC_RELAXED);
	s->asked = 1;
	pthread_mutex_unlock(&s->out_lock);
}

/* Takes what the guest has sent out of the buffer: how many bytes. */
long mc_serial_output(struct mc_serial *s, char *data, size_t size)
{
	size_t n;

	pthread_mutex_lock(&s->out_lock);
	n = s->used < size ? s->used : size;
	memcpy(data, s->out, n);
	memmove(s->out, s->out + n, s->used - n);
	__atomic_store_n(&s->used, s->used - n, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&s->out_lock);
	return (long)n;
}

/* ---- interrupts */

/* The most urgent cause (PC16550D, table IV). */
static int cause(const struct mc_serial *s)
{
	if ((s->ier & UART_IER_RLSI) && s->lsr_errors)
		return UART_IIR_RLSI;
	if ((s->ier & UART_IER_RDI) && s->in_head != s->in_tail)
		return UART_IIR_RDI;
	if ((s->ier & UART_IER_THRI) && s->empty_irq)
		return UART_IIR_THRI;
	if ((s->ier & UART_IER_MSI) && s->msr_deltas)
		return UART_IIR_MSI;
	return UART_IIR_NO_INT;
}

static void update_line(struct mc_serial *s)
{
	int level = cause(s) != UART_IIR_NO_INT;
	struct kvm_irq_level irq = { .irq = MC_SERIAL_IRQ, .level = (uint32_t)level };

	if (s->vm >= 0 && level != s->line)
		ioctl(s->vm, KVM_IRQ_LINE, &irq);
	s->line = level;
}

/* ---- input */

static size_t receive(struct mc_serial *s, const char *data, size_t size)
{
	size_t n = 0;

	while (n < size && s->in_head - s->in_tail < IN)
		s->in[s->in_head++ % IN] = (uint8_t)data[n++];
	return n;
}

/* How many bytes were taken. overrun: what finds no place is lost, and the guest is told (LSR's OE). */
long mc_serial_input(struct mc_serial *s, const char *data, size_t size, int overrun)
{
	size_t n;

	pthread_mutex_lock(&s->lock);
	n = receive(s, data, size);
	if (overrun && n < size) {
		s->lsr_errors |= UART_LSR_OE;
		n = size;
	}
	update_line(s);
	pthread_mutex_unlock(&s->lock);
	return (long)n;
}

/* ---- registers */

static int modem_status(struct mc_serial *s)
{
	int status = UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;

	if (s->mcr & UART_MCR_LOOP) /* the four outputs come back as inputs */
		status = (s->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) | (s->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
			 (s->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) | (s->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0);
	return status;
}

static int read_register(struct mc_serial *s, int offset)
{
	int value;

	if (s->lcr & UART_LCR_DLAB && offset <= UART_DLM)
		return offset == UART_DLL ? s->dll : s->dlm;
	switch (offset) {
	case UART_RX:
		return s->in_head == s->in_tail ? 0 : s->in[s->in_tail++ % IN];
	case UART_IER:
		return s->ier;
	case UART_IIR:
		value = cause(s);
		if (value == UART_IIR_THRI)
			s->empty_irq = 0;
		return value | s->fifo;
	case UART_LCR:
		return s->lcr;
	case UART_MCR:
		return s->mcr;
	case UART_LSR:
		value = UART_LSR_THRE | UART_LSR_TEMT | s->lsr_errors | (s->in_head != s->in_tail ? UART_LSR_DR : 0);
		s->lsr_errors = 0;
		return value;
	case UART_MSR:
		value = modem_status(s) | s->msr_deltas;
		s->msr_deltas = 0;
		return value;
	default:
		return s->scr;
	}
}

int mc_serial_read(struct mc_serial *s, int offset)
{
	int value;

	if (offset == UART_LSR)
		poll_for_input(s);
	pthread_mutex_lock(&s->lock);
	value = read_register(s, offset);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
	return value;
}

static void send_to_itself(struct mc_serial *s, char byte)
{
	if (receive(s, &byte, 1) == 0)
		s->lsr_errors |= UART_LSR_OE;
	s->empty_irq = 1;
}

static void set_modem(struct mc_serial *s, int value)
{
	int before = modem_status(s), changed;

	s->mcr = (uint8_t)(value & 0x1f);
	changed = before ^ modem_status(s);
	if (!(before & UART_MSR_RI))
		changed &= ~UART_MSR_RI; /* of this one the end alone is told: TERI */
	s->msr_deltas |= (uint8_t)(changed >> 4 & UART_MSR_ANY_DELTA);
}

static void set_fifo(struct mc_serial *s, int value)
{
	s->fifo = value & UART_FCR_ENABLE_FIFO ? 0xc0 : 0;
	if (value & UART_FCR_CLEAR_RCVR)
		s->in_tail = s->in_head;
}

/* All but what leaves on the line. */
static void write_register(struct mc_serial *s, int offset, int value)
{
	if (s->lcr & UART_LCR_DLAB && offset <= UART_DLM) {
		*(offset == UART_DLL ? &s->dll : &s->dlm) = (uint8_t)value;
		return;
	}
	switch (offset) {
	case UART_TX:
		send_to_itself(s, (char)value);
		break;
	case UART_IER:
		s->empty_irq |= (value & UART_IER_THRI) && !(s->ier & UART_IER_THRI);
		s->ier = value & 0xf;
		break;
	case UART_FCR:
		set_fifo(s, value);
		break;
	case UART_LCR:
		s->lcr = (uint8_t)value;
		break;
	case UART_MCR:
		set_modem(s, value);
		break;
	case UART_SCR:
		s->scr = (uint8_t)value;
		break;
	} /* LSR and MSR cannot be written */
}

/* Whether a write there goes out on the line. */
static int is_sent(const struct mc_serial *s, int offset)
{
	return offset == UART_TX && !(__atomic_load_n(&s->lcr, __ATOMIC_RELAXED) & UART_LCR_DLAB) &&
	       !(__atomic_load_n(&s->mcr, __ATOMIC_RELAXED) & UART_MCR_LOOP);
}

/* As put(): below 0 nothing happened, and the same is to be written again. */
int mc_serial_write(struct mc_serial *s, int offset, int value)
{
	const int sent = is_sent(s, offset);
	const char byte = (char)value;
	int r = sent ? mc_serial_print(s, &byte, 1) : 0;

	if (r < 0)
		return r;
	pthread_mutex_lock(&s->lock);
	if (sent)
		s->empty_irq = 1;
	else
		write_register(s, offset, value);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
	return r;
}
