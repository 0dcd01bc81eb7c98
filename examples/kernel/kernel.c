/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * kernel.c: a kernel in four parts: a console, what the loader says, interrupts, and a question. With -DPARTS=1 it is
 * the kernel as it was when only the first part was written, and so on: each can be booted before the next is.
 *
 * Words of its command line: ticks=N, for which it waits; hz=N, so many a second; ask=1: it asks for a name; exit=N,
 * its exit code.
 */
#include <stdint.h>

#ifndef PARTS
#define PARTS 4
#endif

static inline void out(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t in(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

#define DEBUG_EXIT 0xf4 /* ends the machine with an exit code; QEMU: -device isa-debug-exit,iobase=0xf4 */

/* A machine without that device stays here. */
static _Noreturn void finish(uint8_t code)
{
	out(DEBUG_EXIT, code);
	for (;;)
		__asm__ volatile("cli; hlt");
}

/* ---- 1. A console: the 16550 (PC16550D data sheet, table II), without its FIFOs. */

#define SERIAL 0x3f8            /* a byte to transmit, or that was received; with DLAB the divisor's low byte */
#define SERIAL_IER (SERIAL + 1) /* interrupts to enable; with DLAB the divisor's high byte      */
#define SERIAL_LCR (SERIAL + 3) /* line control                                                 */
#define SERIAL_MCR (SERIAL + 4) /* modem control                                                */
#define SERIAL_LSR (SERIAL + 5) /* line status                                                  */
#define DLAB 0x80
#define EIGHT_BITS 0x03         /* without parity, one stop bit                                 */
#define DTR_RTS_OUT2 0x0b       /* ready; a PC's interrupt line is behind OUT2                  */
#define LSR_RECEIVED 0x01
#define LSR_EMPTY 0x20          /* it can take a byte to transmit                               */
#define IER_RECEIVED 0x01

static void start_console(void)
{
	out(SERIAL_LCR, DLAB);
	out(SERIAL, 1); /* of 115,200 baud */
	out(SERIAL_IER, 0);
	out(SERIAL_LCR, EIGHT_BITS);
	out(SERIAL_IER, 0);
	out(SERIAL_MCR, DTR_RTS_OUT2);
}

static void put(char c)
{
	while (!(in(SERIAL_LSR) & LSR_EMPTY))
		;
	out(SERIAL, (uint8_t)c);
}

static void print(const char *text)
{
	while (*text)
		put(*text++);
}

static void print_number(uint32_t n)
{
	if (n >= 10)
		print_number(n / 10);
	put((char)('0' + n % 10));
}

/* By 16, since 64 bits are shifted by the compiler's own code, and divided by ten only with libgcc. */
static void print_hex(uint64_t n)
{
	if (n >= 16)
		print_hex(n >> 4);
	put("0123456789abcdef"[n & 15]);
}

/* ---- 2. What the loader says (Multiboot Specification 0.6.96, 3.3). */

#define LOADED 0x2badb002 /* in EAX: by a loader that keeps to the specification */
#define HAS_COMMAND_LINE (1 << 2)
#define HAS_MAP (1 << 6)
#define HAS_LOADER (1 << 9)
#define USABLE 1

struct information {
	uint32_t flags, lower, upper, boot_device, command_line, modules, modules_at, symbols[4];
	uint32_t map_length, map, drives_length, drives, configuration, loader;
};

struct range {
	uint32_t size; /* of the rest, which may be longer than this */
	uint64_t address, length;
	uint32_t type;
} __attribute__((packed));

static void print_map(const struct information *info)
{
	uint64_t usable = 0;
	uint32_t at = info->map;

	while (at < info->map + info->map_length) {
		const struct range *range = (const struct range *)at;

		print("0x");
		print_hex(range->address);
		print(" to 0x");
		print_hex(range->address + range->length - 1);
		print(range->type == USABLE ? ": memory\n" : ": not for use\n");
		if (range->type == USABLE)
			usable += range->length;
		at += range->size + sizeof(range->size);
	}
	print_number((uint32_t)(usable >> 10));
	print(" KiB of memory\n");
}

/* Returns the command line. */
static const char *print_information(uint32_t magic, const struct information *info)
{
	const char *line;

	if (magic != LOADED) {
		print("not loaded by multiboot\n");
		finish(1);
	}
	line = info->flags & HAS_COMMAND_LINE ? (const char *)info->command_line : "";
	print("loaded by ");
	print(info->flags & HAS_LOADER ? (const char *)info->loader : "a loader without a name");
	print(", command line: ");
	print(line);
	put('\n');
	if (info->flags & HAS_MAP)
		print_map(info);
	return line;
}

/* The number behind a word such as "ticks=". */
static uint32_t option(const char *line, const char *name, uint32_t otherwise)
{
	for (; *line; line++) {
		uint32_t n = 0;
		int i = 0;

		while (name[i] && line[i] == name[i])
			i++;
		if (name[i])
			continue;
		for (line += i; *line >= '0' && *line <= '9'; line++)
			n = 10 * n + (uint32_t)(*line - '0');
		return n;
	}
	return otherwise;
}

/* ---- 3. Interrupts: a table of handlers (Intel SDM 3A, "Interrupt Descriptor Table (IDT)"), the 8259A interrupt
 * controllers and the 8254 timer (Intel's data sheets). */

#define PIC1 0x20               /* lines 0 to 7; the port behind it takes the rest of a command */
#define PIC2 0xa0               /* lines 8 to 15                                                */
#define END_OF_INTERRUPT 0x20
#define VECTOR 0x20             /* of line 0: the processor's exceptions have the first 32      */
#define TIMER 0                 /* the lines that are used                                      */
#define SERIAL_LINE 4
#define GATE 0x8e               /* present, for 32 bits, interrupts off in the handler          */
#define PIT_CHANNEL0 0x40
#define PIT_COMMAND 0x43
#define PIT_RATE 0x34           /* channel 0, low then high byte, mode 2: rate generator        */
#define PIT_HZ 1193182u

struct gate {
	uint16_t low, selector;
	uint8_t zero, type;
	uint16_t high;
};

static struct gate idt[VECTOR + 8]; /* an exception finds no gate, and ends in a triple fault */
static volatile uint32_t ticks;

void timer_entry(void), serial_entry(void); /* boot.S; they call timer and serial */
void timer(void), serial(void);

void timer(void)
{
	ticks++;
	out(PIC1, END_OF_INTERRUPT);
}

static void set_gate(int line, void (*entry)(void))
{
	uint16_t cs;

	__asm__("mov %%cs, %0" : "=r"(cs));
	idt[VECTOR + line] = (struct gate){ (uint16_t)(uint32_t)entry, cs, 0, GATE, (uint16_t)((uint32_t)entry >> 16) };
}

/* The BIOS leaves line 0 at vector 8, which is the double fault's; so the controllers are initialised again. */
static void remap(uint16_t pic, uint8_t vector, uint8_t cascade, uint8_t mask)
{
	out(pic, 0x11);        /* ICW1: begin; edges; there are two; ICW4 follows */
	out(pic + 1, vector);  /* ICW2 */
	out(pic + 1, cascade); /* ICW3: where they are connected */
	out(pic + 1, 0x01);    /* ICW4: for an 8086 and its successors */
	out(pic + 1, mask);    /* OCW1: lines that are off */
}

static void start_interrupts(uint32_t hz)
{
	const struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) idtr = { sizeof(idt) - 1, (uint32_t)idt };
	const uint32_t divisor = PIT_HZ / hz;

	set_gate(TIMER, timer_entry);
	set_gate(SERIAL_LINE, serial_entry);
	__asm__ volatile("lidt %0" : : "m"(idtr) : "memory");
	remap(PIC1, VECTOR, 1 << 2, (uint8_t)~(1 << TIMER | 1 << SERIAL_LINE));
	remap(PIC2, VECTOR + 8, 2, 0xff);
	out(PIT_COMMAND, PIT_RATE);
	out(PIT_CHANNEL0, (uint8_t)divisor);
	out(PIT_CHANNEL0, (uint8_t)(divisor >> 8));
}

/* Until the next interrupt. STI takes effect after the next instruction: no interrupt can come between it and HLT, and
 * leave HLT waiting for another (Intel SDM 2B, "STI"). */
static void sleep(void)
{
	__asm__ volatile("sti; hlt; cli" : : : "memory");
}

static void count_ticks(uint32_t wanted, uint32_t hz)
{
	hz = hz < 19 ? 19 : hz > 1000 ? 1000 : hz; /* the divisor has 16 bits */
	start_interrupts(hz);
	print("ticks, ");
	print_number(hz);
	print(" a second:");
	for (uint32_t seen = 0; seen < wanted;) {
		while (ticks == seen) /* more than one may have come */
			sleep();
		put(' ');
		print_number(++seen);
	}
	put('\n');
}

/* ---- 4. A question: what is typed comes by interrupt, and is sent back. */

static char typed[80];
static volatile uint32_t length, entered;

void serial(void)
{
	while (in(SERIAL_LSR) & LSR_RECEIVED) {
		char c = (char)in(SERIAL);

		if (c == '\r')
			c = '\n'; /* of a terminal's Enter */
		put(c);
		if (c == '\n')
			entered = 1;
		else if (!entered && length < sizeof(typed) - 1)
			typed[length++] = c;
	}
	out(PIC1, END_OF_INTERRUPT);
}

static void ask(void)
{
	print("who are you? ");
	out(SERIAL_IER, IER_RECEIVED); /* what has come before interrupts now */
	while (!entered)
		sleep();
	print("hello, ");
	print(typed);
	put('\n');
}

/* ---- All of them. */

void _start(void); /* boot.S, which calls this */
_Noreturn void kernel(uint32_t magic, const struct information *info);

void kernel(uint32_t magic, const struct information *info)
{
	const char *options = "";

	start_console();
	print("hello from a kernel that was entered at 0x");
	print_hex((uint32_t)_start);
	put('\n');
	if (PARTS >= 2)
		options = print_information(magic, info);
	if (PARTS >= 3)
		count_ticks(option(options, "ticks=", 10), option(options, "hz=", 100));
	if (PARTS >= 4 && option(options, "ask=", 0))
		ask();
	finish((uint8_t)option(options, "exit=", 0));
}
