// As much of CUDA as our kernels use, on the host, so that a plain C++ compiler builds them and a
// test compares their numbers where there is no GPU.
//
// Blocks, and the warps of a block, run one after the other. The 32 lanes of a warp are coroutines:
// each runs until it meets the others, in __syncwarp or a shuffle. So a lane that reads what
// another one has yet to write finds what was there before, and a shuffle that not all lanes reach
// is an error instead of a hang.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

using std::min;

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline dim3 threadIdx, blockIdx;

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

using cudaError_t = int;
using cudaStream_t = void*;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream;
};

namespace on_host {

constexpr int kLanes = 32;
constexpr size_t kStackBytes = 64 << 10;

inline struct Warp {
  // A context enters a lane's own stack for the first time; jumps, which need no system call,
  // switch from then on.
  ucontext_t entries[kLanes];
  jmp_buf scheduler, lanes[kLanes];
  std::unique_ptr<char[]> stacks[kLanes];
  int lane = 0, meetings[kLanes] = {};
  bool ended[kLanes] = {};
  double words[kLanes] = {};  // of a shuffle
  std::function<void()> body;
} warp;

inline void meet() {
  ++warp.meetings[warp.lane];
  if (_setjmp(warp.lanes[warp.lane]) == 0) _longjmp(warp.scheduler, 1);
}

inline void run_lane() {
  warp.body();
  warp.ended[warp.lane] = true;
  _longjmp(warp.scheduler, 1);
}

inline void resume(int lane) {
  warp.lane = lane;
  if (_setjmp(warp.scheduler) != 0) return;
  if (warp.meetings[lane] > 0) _longjmp(warp.lanes[lane], 1);
  setcontext(&warp.entries[lane]);
}

inline void run_warp(unsigned first_thread) {
  for (int i = 0; i < kLanes; ++i) {
    if (!warp.stacks[i]) {
      warp.stacks[i] = std::make_unique<char[]>(kStackBytes);
      getcontext(&warp.entries[i]);
      warp.entries[i].uc_stack.ss_sp = warp.stacks[i].get();
      warp.entries[i].uc_stack.ss_size = kStackBytes;
      makecontext(&warp.entries[i], run_lane, 0);
    }
    warp.meetings[i] = 0;
    warp.ended[i] = false;
  }
  while (!warp.ended[0]) {
    for (int lane = 0; lane < kLanes; ++lane) {
      threadIdx.x = first_thread + lane;
      resume(lane);
      if (warp.ended[lane] != warp.ended[0] || warp.meetings[lane] != warp.meetings[0]) {
        std::fprintf(stderr, "lane %d of a warp went another way than lane 0\n", lane);
        std::abort();
      }
    }
  }
}

}  // namespace on_host

inline void __syncwarp() { on_host::meet(); }

template <typename T>
T __shfl_xor_sync(unsigned, T word, int mask) {
  auto& warp = on_host::warp;
  warp.words[warp.lane] = word;
  on_host::meet();
  const T other = static_cast<T>(warp.words[warp.lane ^ mask]);
  on_host::meet();  // none gives its next word before all have read this one
  return other;
}

inline void __stwb(uint4* target, uint4 word) { *target = word; }

template <typename T>
void atomicAdd(T* target, T term) {
  *target += term;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  on_host::warp.body = [&] { kernel(arguments...); };
  const dim3 grid = config->gridDim;
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
        for (unsigned i = 0; i < config->blockDim.x; i += on_host::kLanes) on_host::run_warp(i);
  return 0;
}
