#pragma once

#include <c10/util/Exception.h>

inline void C10_CUDA_CHECK(int status) { TORCH_CHECK(status == 0, "CUDA error ", status); }
inline void C10_CUDA_KERNEL_LAUNCH_CHECK() {}
