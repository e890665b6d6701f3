// The types that values may have: each kernel is compiled for each of them.

#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#define FOR_EACH_VALUE_TYPE(DO) DO(double) DO(float) DO(c10::Half) DO(c10::BFloat16)
