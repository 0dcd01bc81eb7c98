/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * serial.c: a 16550A UART (National Semiconductor PC16550D data sheet) whose line is infinitely fast.
 *
 * Theory of operation. Virtual CPUs write and read its registers (mc_serial_write, mc_serial_read), and a thread of the
 * caller's brings input; a lock keeps them apart. What the guest sends is kept in `out`, and goes to a descriptor when
 * a line is whole, the buffer is full or the machine pauses; at once where somebody may be waiting for it (`eager`). Where
 * there is no descriptor, a full buffer is the caller's to empty. A descriptor that takes nothing makes the
 * guest wait, as a real line would. Received bytes wait in `in`, which is bounded: the caller brings no more than it takes,
 * or asks for the overrun that a real line would have.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/kvm.h>
#include <linux/serial_reg.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vcpu.h"

#define OUT 8192
#define IN 4096 /* a power of two */

struct mc_serial {
	pthread_mutex_t lock;
	int fd, vm, eager;
	int line;              /* the interrupt line's level */
	uint8_t ier, lcr, mcr, scr, dll, dlm, fifo;
	uint8_t lsr_errors;    /* until LSR is read */
	uint8_t msr_deltas;    /* until MSR is read */
	uint8_t empty_irq;     /* "transmitter empty" is to be told */
	uint32_t in_head, in_tail;
	size_t used;
	uint8_t in[IN];
	char out[OUT];
};

struct mc_serial *mc_serial_new(int fd, int vm, int eager)
{
	struct mc_serial *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	pthread_mutex_init(&s->lock, NULL);
	s->fd = fd;
	s->vm = vm;
	s->eager = eager;
	s->dll = 12; /* 9600 baud, as a PC's firmware leaves it */
	return s;
}

void mc_serial_free(struct mc_serial *s)
{
	if (s) {
		pthread_mutex_destroy(&s->lock);
		free(s);
	}
}

/* ---- output */

/* 0, or -errno with what was not taken still held: -EINTR, -EPIPE ... */
static int flush(struct mc_serial *s)
{
	size_t done = 0;
	int r = 0;

	if (s->fd < 0)
		return 0;
	while (done < s->used && r == 0) {
		ssize_t n = write(s->fd, s->out + done, s->used - done);

		if (n < 0)
			r = -errno;
		else
			done += (size_t)n;
	}
	memmove(s->out, s->out + done, s->used - done);
	s->used -= done;
	return r;
}

/* 0: taken; -ENOBUFS: the caller is to empty the buffer, and to come again; or what write(2) said. */
static int put(struct mc_serial *s, const char *data, size_t size)
{
	int r = 0;

	if (OUT - s->used < size)
		r = s->fd < 0 ? -ENOBUFS : flush(s);
	if (r < 0)
		return r;
	memcpy(s->out + s->used, data, size);
	s->used += size;
	if (s->eager || memchr(data, '\n', size))
		flush(s); /* what it could not write is kept, and tried again */
	return 0;
}

int mc_serial_print(struct mc_serial *s, const char *data, size_t size)
{
	int r;

	pthread_mutex_lock(&s->lock);
	r = put(s, data, size);
	pthread_mutex_unlock(&s->lock);
	return r;
}

int mc_serial_flush(struct mc_serial *s)
{
	int r;

	pthread_mutex_lock(&s->lock);
	r = flush(s);
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* Takes what the guest has sent out of the buffer: how many bytes. */
long mc_serial_output(struct mc_serial *s, char *data, size_t size)
{
	size_t n;

	pthread_mutex_lock(&s->lock);
	n = s->used < size ? s->used : size;
	memcpy(data, s->out, n);
	memmove(s->out, s->out + n, s->used - n);
	s->used -= n;
	pthread_mutex_unlock(&s->lock);
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

static uint32_t receive(struct mc_serial *s, const char *data, size_t size)
{
	uint32_t n = 0;

	while (n < size && s->in_head - s->in_tail < IN)
		s->in[s->in_head++ % IN] = (uint8_t)data[n++];
	return n;
}

/* How many bytes were taken. overrun: what finds no place is lost, and the guest is told (LSR's OE). */
long mc_serial_input(struct mc_serial *s, const char *data, size_t size, int overrun)
{
	uint32_t n;

	pthread_mutex_lock(&s->lock);
	n = receive(s, data, size);
	if (overrun && n < size) {
		s->lsr_errors |= UART_LSR_OE;
		n = (uint32_t)size;
	}
	update_line(s);
	pthread_mutex_unlock(&s->lock);
	return n;
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

	pthread_mutex_lock(&s->lock);
	value = read_register(s, offset);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
	return value;
}

static int transmit(struct mc_serial *s, char byte)
{
	int r = 0;

	if (!(s->mcr & UART_MCR_LOOP))
		r = put(s, &byte, 1);
	else if (receive(s, &byte, 1) == 0)
		s->lsr_errors |= UART_LSR_OE;
	s->empty_irq |= r == 0;
	return r;
}

static void set_modem(struct mc_serial *s, int value)
{
	int before = modem_status(s);

	s->mcr = (uint8_t)(value & 0x1f);
	s->msr_deltas |= (uint8_t)((before ^ modem_status(s)) >> 4 & UART_MSR_ANY_DELTA);
}

static void set_fifo(struct mc_serial *s, int value)
{
	s->fifo = value & UART_FCR_ENABLE_FIFO ? 0xc0 : 0;
	if (value & UART_FCR_CLEAR_RCVR)
		s->in_tail = s->in_head;
}

static int write_register(struct mc_serial *s, int offset, int value)
{
	if (s->lcr & UART_LCR_DLAB && offset <= UART_DLM) {
		*(offset == UART_DLL ? &s->dll : &s->dlm) = (uint8_t)value;
		return 0;
	}
	switch (offset) {
	case UART_TX:
		return transmit(s, (char)value);
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
	}
	return 0; /* LSR and MSR cannot be written */
}

/* 0, or as put(): nothing happened then, and the same is to be written again. */
int mc_serial_write(struct mc_serial *s, int offset, int value)
{
	int r;

	pthread_mutex_lock(&s->lock);
	r = write_register(s, offset, value);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
	return r;
}
