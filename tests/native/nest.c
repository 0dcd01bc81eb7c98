/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * nest.c: DEPTH PROGRAM: below the directory that it is in, directories in directories (a cgroup in each, and one beside
 * it), where PROGRAM runs half-way down and at the bottom.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void run_here(const char *program)
{
	int fd;

	if (fork())
		return;
	fd = open("cgroup.procs", O_WRONLY);
	if (fd < 0 || write(fd, "0", 1) != 1)
		_exit(2);
	execl(program, program, (char *)0);
	_exit(3);
}

int main(int argc, char **argv)
{
	int depth = argc > 2 ? atoi(argv[1]) : 0;

	for (int i = 1; i <= depth; i++) {
		if (mkdir("0", 0755) || mkdir("a", 0755) || mkdir("z", 0755) || chdir("a"))
			return 1;
		if (i == depth / 2 || i == depth)
			run_here(argv[2]);
	}
	for (;;)
		pause();
}
