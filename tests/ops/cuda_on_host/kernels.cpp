// The CUDA kernels and their launches, whole and unchanged, to be called with host pointers.
#include "backward.cu"
#include "forward.cu"

namespace {

using namespace rankseg_d2::cuda;

template <typename Acc>
Points<Acc> points_of(const void* positions, const void* weights, const void* reference) {
  return {static_cast<const Acc*>(positions), static_cast<const Acc*>(weights),
          static_cast<const Acc*>(reference)};
}

// Calls f with a null pointer to the type of this name.
template <typename F>
int with_type(char type, F f) {
  switch (type) {
    case 'd': return f(static_cast<double*>(nullptr));
    case 'f': return f(static_cast<float*>(nullptr));
    case 'h': return f(static_cast<c10::Half*>(nullptr));
    case 'b': return f(static_cast<c10::BFloat16*>(nullptr));
  }
  return -1;
}

}  // namespace

extern "C" int run_forward(char type, const Sizes* sizes, const void* positions,
                           const void* weights, const void* reference, const void* value,
                           void* out) {
  return with_type(type, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    return forward<T>(*sizes, points_of<Accumulator<T>>(positions, weights, reference),
                      static_cast<const T*>(value), static_cast<T*>(out), nullptr);
  });
}

extern "C" int run_backward(char type, const Sizes* sizes, const void* positions,
                            const void* weights, const void* reference, const void* value,
                            const void* grad, void* grad_value, void* grad_positions,
                            void* grad_weights) {
  return with_type(type, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    using Acc = Accumulator<T>;
    return backward<T>(*sizes, points_of<Acc>(positions, weights, reference),
                       static_cast<const T*>(value), static_cast<const T*>(grad),
                       static_cast<Acc*>(grad_value), static_cast<Acc*>(grad_positions),
                       static_cast<Acc*>(grad_weights), nullptr);
  });
}
