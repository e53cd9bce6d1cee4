// Counts NaN and infinity where values enter.
#pragma once

#include <cstdint>

#include "tensor/matrix.h"

namespace gptq {

// Elements of a dense float matrix on the host that are NaN or infinite.
int64_t count_nonfinite(ConstMatrixView values);

}  // namespace gptq
