// The loops for processors with AVX-512.

#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target( \
                                  "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                            apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

#define VECTOR_BYTES 64

namespace rankseg_d2::avx512 {
#include "kernels_set.h"
}  // namespace rankseg_d2::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
