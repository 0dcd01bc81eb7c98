/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * vcpu.c: runs a virtual CPU.
 *
 * Theory of operation. mc_vcpu_attach attaches the calling thread to the virtual CPU, mc_vcpu_run enters the guest
 * until there is an exit for the caller, mc_vcpu_detach detaches the thread. An exit for a port or an address has
 * items (one, or many for `rep outsb`); each is handled here, or by the caller, which calls mc_vcpu_run again with
 * the value. After the last item comes the next KVM_RUN.
 *
 * Another thread stops a virtual CPU by the signal KICK. Its handler sets immediate_exit, so that a KVM_RUN that is
 * about to start returns at once too: no kick is lost. A kicked virtual CPU checks the board (stop, deadline), and
 * continues if neither applies. At the deadline a timer sends KICK to this thread. If KVM handles HLT, a kick also
 * detects a machine that is halted for ever: the caller sends the kick when the machine has been idle for a while.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kvm/vcpu.h"
#include "plan/native.h"

#define KICK SIGRTMAX
#define RETRY_NS 10000000l
#define SIGNAL_CHECK_NS 50000000u /* longest time until the caller can handle its signals */

static __thread struct mc_vcpu *current;
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;
static int handler_error;

/* ---- the thread of a virtual CPU */

static void kicked(int signal)
{
	(void)signal;
	if (current)
		((struct kvm_run *)current->run)->immediate_exit = 1;
}

static void install_handler(void)
{
	struct sigaction action = { .sa_handler = kicked }; /* no SA_RESTART: KVM_RUN and write(2) return */

	handler_error = sigaction(KICK, &action, NULL) < 0 ? -errno : 0;
}

static int start_timer(struct mc_vcpu *v)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KICK };
	struct itimerspec when = { .it_interval = { 0, RETRY_NS } };
	uint64_t now = mc_now();
	uint64_t ns = v->board->deadline_ns > now ? v->board->deadline_ns - now : 1;
	timer_t timer;

	event._sigev_un._tid = v->thread;
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) < 0)
		return -errno;
	when.it_value = (struct timespec){ (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
	v->timer = (uint64_t)(uintptr_t)timer;
	v->has_timer = 1;
	return timer_settime(timer, 0, &when, NULL) < 0 ? -errno : 0;
}

/* Returns 0; -EBUSY: a thread is attached, perhaps this one; or another -errno. */
int mc_vcpu_attach(struct mc_vcpu *v)
{
	int32_t none = 0, thread = (int32_t)syscall(SYS_gettid);
	sigset_t kick;
	int r;

	pthread_once(&handler_once, install_handler);
	if (handler_error)
		return handler_error;
	sigemptyset(&kick);
	sigaddset(&kick, KICK);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	if (!__atomic_compare_exchange_n(&v->thread, &none, thread, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return -EBUSY;
	v->outer = current;
	v->left_ns = 0; /* the time since an earlier run is not part of an exit */
	current = v;
	r = v->board->deadline_ns ? start_timer(v) : 0;
	if (r < 0)
		mc_vcpu_detach(v);
	return r;
}

/* Detaches this thread; does nothing if another one is attached, or none. */
int mc_vcpu_detach(struct mc_vcpu *v)
{
	const struct mc_vcpu *attached = current;

	while (attached && attached != v)
		attached = attached->outer;
	if (!attached)
		return 0;
	if (v->has_timer)
		timer_delete((timer_t)(uintptr_t)v->timer);
	v->has_timer = 0;
	if (current == v)
		current = v->outer;
	__atomic_store_n(&v->thread, 0, __ATOMIC_SEQ_CST);
	((struct kvm_run *)v->run)->immediate_exit = 0;
	return 0;
}

int mc_vcpu_kick(struct mc_vcpu *v)
{
	int32_t thread = __atomic_load_n(&v->thread, __ATOMIC_SEQ_CST);

	if (thread && syscall(SYS_tgkill, getpid(), thread, KICK) < 0)
		return -errno;
	return 0;
}

/* Processor time of the thread in nanoseconds; 0: there is no thread. */
uint64_t mc_vcpu_thread_ns(struct mc_vcpu *v)
{
	int32_t thread = __atomic_load_n(&v->thread, __ATOMIC_SEQ_CST);
	struct timespec t = { 0 };

	/* a thread's clock: CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED (Linux include/linux/posix-timers_types.h) */
	if (thread)
		clock_gettime((clockid_t)(~(unsigned)thread << 3 | 6), &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- accesses */

static uint64_t load(const struct mc_exit *e, uint32_t item)
{
	uint64_t value = 0;

	memcpy(&value, (const char *)e->data + (size_t)item * e->size, e->size);
	return value;
}

static void store(struct mc_exit *e, uint32_t item)
{
	memcpy((char *)e->data + (size_t)item * e->size, &e->value, e->size);
}

/* Handles one item at a register of the serial port. Returns the result of mc_serial_write; 0 after a read. */
static int serial_item(struct mc_vcpu *v)
{
	struct mc_exit *e = &v->exit;
	int offset = (int)e->address - MC_SERIAL_PORT;

	if (e->write)
		return mc_serial_write(v->board->serial, offset, (int)(e->value & 0xff));
	e->value = ~0xffull | (uint64_t)mc_serial_read(v->board->serial, offset);
	store(e, v->item);
	return 0;
}

/* Handles the items of an exit for the serial port or the debug console. 1: all are handled; 0: the exit is for the
 * caller; -errno: items are left, -EINTR after a signal. */
static int handle_in_c(struct mc_vcpu *v)
{
	struct mc_exit *e = &v->exit;
	int r = 0;

	if (e->reason != KVM_EXIT_IO || !v->board->serial)
		return 0;
	if (e->address == MC_DEBUG_CONSOLE_PORT && e->write && e->size == 1) {
		for (uint32_t n; v->item < e->count && r == 0; v->item += r >= 0 ? n : 0) {
			n = e->count - v->item < 1024 ? e->count - v->item : 1024;
			r = mc_serial_print(v->board->serial, (char *)e->data + v->item, n);
		}
		return r > 0 ? -EINTR : r == 0 ? 1 : r;
	}
	if (e->address < MC_SERIAL_PORT || e->address > MC_SERIAL_PORT + 7)
		return 0;
	for (; v->item < e->count && r == 0; v->item += r >= 0) {
		e->value = load(e, v->item);
		r = serial_item(v);
	}
	return r > 0 ? -EINTR : r == 0 ? 1 : r;
}

/* Handles the current exit. 0: it is handled; -errno: output could not be written; else the result of mc_vcpu_run. */
static int handle(struct mc_vcpu *v)
{
	struct mc_exit *e = &v->exit;
	int r;

	if (e->count == 0) { /* neither a port nor an address: for the caller */
		v->open = 0;
		return (int)e->reason;
	}
	if (v->open == 2) { /* the caller has handled this item */
		if (!e->write)
			store(e, v->item);
		v->item++;
		v->open = 1;
	} else {
		r = handle_in_c(v);
		if (r < 0)
			return r;
		if (r == 1) {
			v->open = 0;
			return 0;
		}
	}
	if (v->item >= e->count) {
		v->open = 0;
		return 0;
	}
	e->value = e->write ? load(e, v->item) : ~0ull; /* the default without a device: all ones */
	v->open = 2;
	if (e->reason == KVM_EXIT_IO && e->address == MC_DEBUG_EXIT_PORT && e->write)
		return MC_STOP_DEBUG_EXIT;
	return (int)e->reason;
}

/* ---- the loop */

/* Counts this virtual CPU if it is halted with interrupts disabled. Whether all have been counted since halt_check was
 * set: then only an NMI or INIT could wake one. */
static int all_halted(struct mc_vcpu *v)
{
	struct mc_board *b = v->board;
	uint32_t check = __atomic_load_n(&b->halt_check, __ATOMIC_SEQ_CST);
	struct kvm_mp_state state = { 0 };

	if (check == 0 || v->halt_checked == check)
		return 0;
	if (((struct kvm_run *)v->run)->if_flag || ioctl(v->fd, KVM_GET_MP_STATE, &state) < 0)
		return 0;
	if (state.mp_state != KVM_MP_STATE_HALTED && state.mp_state != KVM_MP_STATE_UNINITIALIZED)
		return 0;
	v->halt_checked = check;
	return __atomic_add_fetch(&b->halted, 1, __ATOMIC_SEQ_CST) == b->cpus;
}

/* The reason to stop (enum mc_stop), or 0. `now`: a recent time, or 0 to read the clock. */
static int stop_reason(const struct mc_vcpu *v, uint64_t now)
{
	const struct mc_board *b = v->board;

	if (__atomic_load_n(&b->stop, __ATOMIC_SEQ_CST))
		return MC_STOP_REQUESTED;
	if (b->max_exits && __atomic_load_n(&b->exits, __ATOMIC_RELAXED) >= b->max_exits)
		return MC_STOP_EXITS;
	if (b->deadline_ns && (now ? now : mc_now()) >= b->deadline_ns)
		return MC_STOP_DEADLINE;
	return 0;
}

/* Adds the time since KVM_RUN returned to that of the exit's reason and port. */
static void account(struct mc_vcpu *v, uint64_t now)
{
	const struct mc_exit *e = &v->exit;
	uint64_t took = now - v->left_ns;

	if (v->left_ns == 0)
		return;
	v->host_ns[e->reason % MC_REASONS] += took;
	if (v->ports && e->reason == KVM_EXIT_IO)
		v->ports[2 * e->address + 1] += took;
}

static void count(struct mc_vcpu *v)
{
	const struct mc_exit *e = &v->exit;

	v->counts[e->reason % MC_REASONS]++;
	if (v->ports && e->reason == KVM_EXIT_IO)
		v->ports[2 * e->address]++;
	__atomic_add_fetch(&v->board->exits, 1, __ATOMIC_RELAXED);
}

/* One KVM_RUN. 0: there is an exit; MC_STOP_SIGNAL: a signal ended it; or -errno. */
static int enter(struct mc_vcpu *v)
{
	struct kvm_run *run = v->run;
	uint64_t before = mc_now();
	int r;

	account(v, before);
	v->entered_ns = before;
	do
		r = ioctl(v->fd, KVM_RUN, 0) < 0 ? -errno : 0;
	while (r == -EAGAIN); /* the virtual CPU has received the SIPI that it waited for */
	v->left_ns = mc_now();
	v->guest_ns += v->left_ns - before;
	if (r == -EINTR) {
		run->immediate_exit = 0;
		v->left_ns = 0;
		return MC_STOP_SIGNAL;
	}
	if (r < 0)
		return r;
	if (v->first_ns == 0)
		v->first_ns = v->left_ns;
	mc_exit_decode(run, &v->exit);
	count(v);
	v->item = 0;
	v->open = 1;
	return 0;
}

/* After a signal: KICK, so it checks the board; or another one, for which the caller runs its handlers. */
static int after_signal(struct mc_vcpu *v)
{
	int r = stop_reason(v, 0);

	if (r == 0 && all_halted(v))
		r = MC_STOP_HALTED;
	return r ? r : MC_STOP_SIGNAL;
}

/* The result of mc_vcpu_run when output could not be written. */
static int output_stop(int r)
{
	return r == -EINTR ? MC_STOP_SIGNAL : MC_STOP_OUTPUT;
}

/* Flushes pending output of the serial port, then enters the guest. */
static int flush_and_enter(struct mc_vcpu *v)
{
	int r = v->board->serial ? mc_serial_flush_pending(v->board->serial) : 0;

	return r < 0 ? output_stop(r) : enter(v);
}

int mc_vcpu_run(struct mc_vcpu *v)
{
	uint64_t started = v->left_ns ? v->left_ns : mc_now();
	int r = v->open ? 0 : stop_reason(v, v->left_ns);

	while (r == 0) {
		if (v->open == 0)
			r = flush_and_enter(v);
		if (r)
			break;
		r = handle(v);
		if (r < 0)
			r = output_stop(r);
		else if (r == 0)
			r = v->board->trace ? MC_STOP_TRACE : stop_reason(v, v->left_ns);
		if (r == 0 && v->left_ns > started + SIGNAL_CHECK_NS)
			r = MC_STOP_SIGNAL; /* a signal between two KVM_RUNs has ended neither */
	}
	return r == MC_STOP_SIGNAL ? after_signal(v) : r;
}
