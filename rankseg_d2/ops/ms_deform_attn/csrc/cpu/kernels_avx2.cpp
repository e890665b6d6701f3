// The loops for processors with AVX2 and FMA.

#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target( \
                                  "avx2,fma,f16c"))), \
                            apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#define VECTOR_BYTES 32

namespace rankseg_d2::avx2 {
#include "kernels_set.h"
}  // namespace rankseg_d2::avx2

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
