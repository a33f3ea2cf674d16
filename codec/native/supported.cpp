// Whether the processor has the instructions that this is compiled with.
#include "kernels.h"

KERNEL(supported)() {
#if defined(__AVX512BW__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#elif defined(__AVX2__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;
#endif
}

// The sources that the library is made of, see `pixa.native.build`.
KERNEL(sources)() { return KERNEL_SOURCES; }
