"""The cffi builder of ``minicontainer._libzstd`` (out-of-line ABI mode): declarations alone, from zstd.h of zstd 1.5.
The library is not needed until a kernel is booted that zstd has packed."""

from cffi import FFI

ffibuilder = FFI()
ffibuilder.cdef("""
size_t ZSTD_decompress(void *target, size_t capacity, const void *source, size_t size);
size_t ZSTD_findFrameCompressedSize(const void *source, size_t size);
unsigned ZSTD_isError(size_t code);
""")
ffibuilder.set_source("minicontainer._libzstd", None)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
