/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * syscalls.h: raw system calls for x86_64 and aarch64. glibc's wrappers write errno, which a child that shares the
 * caller's memory must not do, and those that change ids do so in every thread. These functions do neither; they
 * return the kernel's result, or -errno.
 */
#ifndef MC_SYSCALLS_H
#define MC_SYSCALLS_H

#include <stdint.h>
#include <sys/syscall.h>

static inline long mc_sys(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
#if defined(__x86_64__)
	long result;
	register uint64_t r10 __asm__("r10") = d;
	register uint64_t r8 __asm__("r8") = e;
	register uint64_t r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register uint64_t x8 __asm__("x8") = nr;
	register uint64_t x0 __asm__("x0") = a;
	register uint64_t x1 __asm__("x1") = b;
	register uint64_t x2 __asm__("x2") = c;
	register uint64_t x3 __asm__("x3") = d;
	register uint64_t x4 __asm__("x4") = e;
	register uint64_t x5 __asm__("x5") = f;

	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return (long)x0;
#else
#error "minicontainer knows x86_64 and aarch64"
#endif
}

#define MC_PTR(p) ((uint64_t)(uintptr_t)(p))
#define MC_FD(fd) ((uint64_t)(int64_t)(fd))

#define mc_sys0(nr) mc_sys(nr, 0, 0, 0, 0, 0, 0)
#define mc_sys1(nr, a) mc_sys(nr, a, 0, 0, 0, 0, 0)
#define mc_sys2(nr, a, b) mc_sys(nr, a, b, 0, 0, 0, 0)
#define mc_sys3(nr, a, b, c) mc_sys(nr, a, b, c, 0, 0, 0)
#define mc_sys4(nr, a, b, c, d) mc_sys(nr, a, b, c, d, 0, 0)
#define mc_sys5(nr, a, b, c, d, e) mc_sys(nr, a, b, c, d, e, 0)

#endif
