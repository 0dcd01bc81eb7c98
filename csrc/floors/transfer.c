/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * transfer.c: the program of a measured machine (`compare devices`):
 *
 *     transfer FILE READS ADDRESS PORT BYTES TRIPS
 *
 * It reads READS blocks of 4 KiB of FILE at pseudo-random offsets, past the page cache, one after the other. Then it
 * sends BYTES bytes by TCP to a server (compare/networkworker.py), receives as many, and exchanges TRIPS single bytes.
 * A mark is on its standard output before the first and after each of these, so that the host's clock measures them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK 4096
#define CHUNK (1 << 16)
#define FAILED 1

static char buffer[CHUNK] __attribute__((aligned(BLOCK)));

static void mark(char letter)
{
	const char text[] = { '=', letter, '=', '\n' };

	if (write(STDOUT_FILENO, text, sizeof(text)) != sizeof(text))
		err(FAILED, "write(stdout)");
}

static void read_blocks(const char *path, long reads)
{
	const int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	const off_t blocks = fd < 0 ? 0 : lseek(fd, 0, SEEK_END) / BLOCK;
	uint64_t x = 1;

	if (blocks <= 0)
		err(FAILED, "open(%s)", path);
	mark('0');
	for (; reads > 0; reads--) {
		x = x * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
		if (pread(fd, buffer, BLOCK, (off_t)((x >> 33) % (uint64_t)blocks) * BLOCK) != BLOCK)
			err(FAILED, "pread(%s)", path);
	}
	mark('1');
	close(fd);
}

static int connected(const char *address, const char *port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
		err(FAILED, "socket()");
	if (inet_pton(AF_INET, address, &to.sin_addr) != 1 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		err(FAILED, "connect(%s)", address);
	return fd;
}

static void say(int fd, const char *data, long size)
{
	while (size > 0) {
		const ssize_t n = write(fd, data, size < CHUNK ? (size_t)size : CHUNK);

		if (n < 0)
			err(FAILED, "write(socket)");
		size -= n;
	}
}

static void hear(int fd, long size)
{
	while (size > 0) {
		const ssize_t n = read(fd, buffer, size < CHUNK ? (size_t)size : CHUNK);

		if (n <= 0)
			err(FAILED, "read(socket)");
		size -= n;
	}
}

static void exchange(int fd, long bytes, long trips)
{
	say(fd, "r", 1); /* the way is known to both then */
	hear(fd, 1);
	mark('2');
	say(fd, "b", 1);
	say(fd, buffer, bytes);
	hear(fd, 1);
	mark('3');
	say(fd, "d", 1);
	hear(fd, bytes + 1);
	mark('4');
	for (; trips > 0; trips--) {
		say(fd, "r", 1);
		hear(fd, 1);
	}
	mark('5');
	shutdown(fd, SHUT_WR);
	if (read(fd, buffer, 1) != 0) /* the server has ended the connection before the machine ends */
		err(FAILED, "read(socket)");
}

int main(int argc, char **argv)
{
	if (argc != 7)
		errx(FAILED, "usage: transfer FILE READS ADDRESS PORT BYTES TRIPS");
	read_blocks(argv[1], atol(argv[2]));
	exchange(connected(argv[3], argv[4]), atol(argv[5]), atol(argv[6]));
	return 0;
}
