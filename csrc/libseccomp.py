"""The cffi builder of ``minicontainer._libseccomp`` (out-of-line ABI mode): declarations alone. Neither a compiler nor
the library is needed until a filter is made.

The names, and the numbers of the enumerations, are the ABI of libseccomp.so.2: seccomp_rule_add(3),
seccomp_attr_set(3).
"""

from cffi import FFI

ffibuilder = FFI()
ffibuilder.cdef("""
typedef void *scmp_filter_ctx;

enum scmp_filter_attr { SCMP_FLTATR_ACT_BADARCH = 2, SCMP_FLTATR_CTL_OPTIMIZE = 8 };
enum scmp_compare {
	SCMP_CMP_NE = 1, SCMP_CMP_LT = 2, SCMP_CMP_LE = 3, SCMP_CMP_EQ = 4, SCMP_CMP_GE = 5, SCMP_CMP_GT = 6,
	SCMP_CMP_MASKED_EQ = 7
};
enum { NR_SCMP_ERROR = -1 };  /* a call of no architecture that the library knows */

struct scmp_arg_cmp { unsigned int arg; enum scmp_compare op; uint64_t datum_a, datum_b; };
struct scmp_version { unsigned int major, minor, micro; };

const struct scmp_version *seccomp_version(void);
scmp_filter_ctx seccomp_init(uint32_t def_action);
void seccomp_release(scmp_filter_ctx ctx);
uint32_t seccomp_arch_resolve_name(const char *arch_name);
int seccomp_arch_add(scmp_filter_ctx ctx, uint32_t arch_token);
int seccomp_attr_set(scmp_filter_ctx ctx, enum scmp_filter_attr attr, uint32_t value);
int seccomp_syscall_resolve_name(const char *name);
int seccomp_syscall_resolve_name_arch(uint32_t arch_token, const char *name);
int seccomp_rule_add_array(scmp_filter_ctx ctx, uint32_t action, int syscall, unsigned int arg_cnt,
                           const struct scmp_arg_cmp *arg_array);
int seccomp_export_bpf(scmp_filter_ctx ctx, int fd);
""")
ffibuilder.set_source("minicontainer._libseccomp", None)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
