/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * serial.c: a 16550A UART (National Semiconductor PC16550D data sheet) with an infinitely fast line.
 *
 * Theory of operation. Virtual CPUs access its registers (mc_serial_write, mc_serial_read), a thread of the caller
 * adds input; `lock` protects both. Output is buffered in `out`, and written to the descriptor at the end of a line,
 * when the buffer is full, when the guest polls for input, and at the end of a run; with `eager` at once. Without a
 * descriptor the caller empties a full buffer. While a descriptor does not accept output the guest waits, as on a
 * real line, but no other thread does: output has its own lock, and no thread takes one lock while it holds the
 * other. Input is queued in `in`. If `in` is full, the caller keeps the rest of its input, or requests an overrun as
 * on a real line.
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
	pthread_mutex_t lock;  /* of everything except the output                                   */
	int vm, eager;
	int line;              /* the interrupt line's level */
	uint8_t ier, lcr, mcr, scr, dll, dlm, fifo;
	uint8_t lsr_errors;    /* cleared when LSR is read */
	uint8_t msr_deltas;    /* cleared when MSR is read */
	uint8_t empty_irq;     /* the interrupt "transmitter empty" is pending */
	uint32_t in_head, in_tail;

	pthread_mutex_t out_lock;
	int fd;
	int lsr_read;             /* LSR was read since the last byte was sent */
	int pending;              /* output must be flushed before the guest continues */
	size_t used;

	uint8_t in[IN];
	char out[OUT];
};

struct mc_serial *mc_serial_new(int fd, int vm, int eager)
{
	struct mc_serial *s = malloc(sizeof(*s));

	if (!s)
		return NULL;
	memset(s, 0, offsetof(struct mc_serial, in)); /* without the buffers, which are large */
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->out_lock, NULL);
	s->fd = fd;
	s->vm = vm;
	s->eager = eager;
	s->dll = 12; /* 9600 baud, as after a PC's firmware */
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

/* Stops using the descriptors: the caller closes them, and their numbers may be reused. */
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

/* Bytes that can be written without blocking after POLLOUT: PIPE_BUF to a pipe (pipe(7)), one to a terminal. */
static size_t write_size(int fd)
{
	struct stat status;

	if (fstat(fd, &status) < 0 || S_ISREG(status.st_mode))
		return OUT;
	return S_ISFIFO(status.st_mode) ? PIPE_BUF : 1;
}

/* 0: the descriptor accepts output; -EAGAIN (only without `wait`): it does not; -EINTR. */
static int check_writable(int fd, int wait)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int n = poll(&p, 1, wait ? -1 : 0);

	return n < 0 ? -errno : n == 0 ? -EAGAIN : 0;
}

/* Writes the buffered output. Returns 0, or -errno (-EINTR, -EPIPE ...; -EAGAIN without `wait`): then the rest of the
 * output stays in the buffer. */
static int flush(struct mc_serial *s, int wait)
{
	const size_t most = wait ? OUT : write_size(s->fd);
	size_t done = 0;
	int r = 0;

	while (s->fd >= 0 && done < s->used && r == 0) {
		size_t left = s->used - done;
		ssize_t n = 0;

		if (!wait)
			r = check_writable(s->fd, 0);
		if (r == 0)
			n = write(s->fd, s->out + done, left < most ? left : most);
		if (n < 0) /* EAGAIN: another process has set O_NONBLOCK */
			r = errno == EAGAIN ? check_writable(s->fd, wait) : -errno;
		else
			done += (size_t)n;
		if (wait && r == 0 && n >= 0 && (size_t)n < left)
			r = -EINTR; /* a signal interrupted a partial write */
	}
	memmove(s->out, s->out + done, s->used - done);
	__atomic_store_n(&s->used, s->used - done, __ATOMIC_RELAXED);
	__atomic_store_n(&s->pending, r < 0, __ATOMIC_RELAXED);
	return r;
}

/* Adds output. 0: it is in the buffer or written; 1: also, and a signal has interrupted write(2); -ENOBUFS: the caller
 * has to empty the buffer and to repeat the call; or -errno of write(2). */
static int put(struct mc_serial *s, const char *data, size_t size)
{
	int r = 0;

	if (OUT - s->used < size)
		r = s->fd < 0 ? -ENOBUFS : flush(s, 1);
	if (r < 0)
		return r;
	memcpy(s->out + s->used, data, size);
	__atomic_store_n(&s->used, s->used + size, __ATOMIC_RELAXED);
	s->lsr_read = 0;
	if (s->eager || memchr(data, '\n', size))
		r = flush(s, 1); /* the rest is pending */
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

int mc_serial_flush_pending(struct mc_serial *s)
{
	return __atomic_load_n(&s->pending, __ATOMIC_RELAXED) ? mc_serial_flush(s, 1) : 0;
}

/* Called at a read of LSR. If the guest reads it twice without output in between, it waits for input: its prompt is
 * flushed. */
static void poll_for_input(struct mc_serial *s)
{
	if (__atomic_load_n(&s->used, __ATOMIC_RELAXED) == 0)
		return;
	pthread_mutex_lock(&s->out_lock);
	if (s->lsr_read)
		__atomic_store_n(&s->pending, 1, __ATOMIC_RELAXED);
	s->lsr_read = 1;
	pthread_mutex_unlock(&s->out_lock);
}

/* Moves output from the buffer to `data`; returns the number of bytes. */
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

/* Returns the number of accepted bytes. `overrun`: all are accepted; those that do not fit are lost, and LSR's OE is
 * set. */
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

	if (s->mcr & UART_MCR_LOOP) /* the four outputs are connected to the inputs */
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

static void loop_back(struct mc_serial *s, char byte)
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
		changed &= ~UART_MSR_RI; /* TERI: only the trailing edge of RI counts */
	s->msr_deltas |= (uint8_t)(changed >> 4 & UART_MSR_ANY_DELTA);
}

static void set_fifo(struct mc_serial *s, int value)
{
	s->fifo = value & UART_FCR_ENABLE_FIFO ? 0xc0 : 0;
	if (value & UART_FCR_CLEAR_RCVR)
		s->in_tail = s->in_head;
}

/* Handles every write to a register except one that transmits a byte. */
static void write_register(struct mc_serial *s, int offset, int value)
{
	if (s->lcr & UART_LCR_DLAB && offset <= UART_DLM) {
		*(offset == UART_DLL ? &s->dll : &s->dlm) = (uint8_t)value;
		return;
	}
	switch (offset) {
	case UART_TX:
		loop_back(s, (char)value);
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

/* Whether a write to this register transmits a byte. */
static int transmits(const struct mc_serial *s, int offset)
{
	return offset == UART_TX && !(__atomic_load_n(&s->lcr, __ATOMIC_RELAXED) & UART_LCR_DLAB) &&
	       !(__atomic_load_n(&s->mcr, __ATOMIC_RELAXED) & UART_MCR_LOOP);
}

/* Returns the result of put(). Below 0 nothing was written, and the caller repeats the write. */
int mc_serial_write(struct mc_serial *s, int offset, int value)
{
	const int is_data = transmits(s, offset);
	const char byte = (char)value;
	int r = is_data ? mc_serial_print(s, &byte, 1) : 0;

	if (r < 0)
		return r;
	pthread_mutex_lock(&s->lock);
	if (is_data)
		s->empty_irq = 1;
	else
		write_register(s, offset, value);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
	return r;
}
