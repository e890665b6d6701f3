// The loops for any processor, and the choice among the instruction sets.

#include "kernels.h"

#include <ATen/Version.h>

#include <string>

#define VECTOR_BYTES 16

namespace rankseg_d2 {

namespace generic {
#include "kernels_set.h"
}  // namespace generic

#if defined(__x86_64__) && defined(__GNUC__)

namespace avx2 {
template <typename S>
const Kernels<S>& kernels();
}  // namespace avx2

namespace avx512 {
template <typename S>
const Kernels<S>& kernels();
}  // namespace avx512

// Also follows ATEN_CPU_CAPABILITY, as torch's own loops do.
template <typename S>
const Kernels<S>& kernels() {
  static const Kernels<S>& chosen = [&]() -> const Kernels<S>& {
    const std::string allowed = at::get_cpu_capability();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (allowed == "DEFAULT" || allowed == "NO AVX" || !avx2) return generic::kernels<S>();
    if (allowed == "AVX2" || !avx512) return avx2::kernels<S>();
    return avx512::kernels<S>();
  }();
  return chosen;
}

#else

template <typename S>
const Kernels<S>& kernels() {
  return generic::kernels<S>();
}

#endif

#define INSTANTIATE(S) template const Kernels<S>& kernels();
FOR_EACH_VALUE_TYPE(INSTANTIATE)
#undef INSTANTIATE

}  // namespace rankseg_d2
