"""The cffi builder of ``minicontainer._libnftables`` (out-of-line ABI mode): declarations alone, from libnftables(3).
The library is not needed until a network is made."""

from cffi import FFI

ffibuilder = FFI()
ffibuilder.cdef("""
struct nft_ctx;

enum { NFT_CTX_OUTPUT_JSON = 16 };

struct nft_ctx *nft_ctx_new(uint32_t flags);
void nft_ctx_free(struct nft_ctx *ctx);
void nft_ctx_output_set_flags(struct nft_ctx *ctx, unsigned int flags);
int nft_ctx_buffer_output(struct nft_ctx *ctx);
int nft_ctx_buffer_error(struct nft_ctx *ctx);
const char *nft_ctx_get_output_buffer(struct nft_ctx *ctx);
const char *nft_ctx_get_error_buffer(struct nft_ctx *ctx);
int nft_run_cmd_from_buffer(struct nft_ctx *nft, const char *buf);
""")
ffibuilder.set_source("minicontainer._libnftables", None)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
