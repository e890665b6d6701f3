// The kernels of one instruction set. Included inside its namespace, after VECTOR_BYTES is defined.

namespace {
#include "kernels_impl.h"
}  // namespace

template <typename S>
const Kernels<S>& kernels() {
  return table<S>();
}

#define INSTANTIATE(S) template const Kernels<S>& kernels();
FOR_EACH_VALUE_TYPE(INSTANTIATE)
#undef INSTANTIATE
