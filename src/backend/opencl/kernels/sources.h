// The texts of the kernels, which CMake compiles in: common.cl precedes each of the others.
#pragma once

#include <string_view>

#define GPTQ_OPENCL_SOURCES(SOURCE) \
  SOURCE(attention)                 \
  SOURCE(cached_attention)          \
  SOURCE(columns)                   \
  SOURCE(common)                    \
  SOURCE(convolution)               \
  SOURCE(copies)                    \
  SOURCE(delta_rule)                \
  SOURCE(factor)                    \
  SOURCE(gates)                     \
  SOURCE(gram)                      \
  SOURCE(grid)                      \
  SOURCE(losses)                    \
  SOURCE(matrix_products)           \
  SOURCE(norms)                     \
  SOURCE(pack)                      \
  SOURCE(packed)                    \
  SOURCE(products)                  \
  SOURCE(rope)                      \
  SOURCE(row_sums)                  \
  SOURCE(state_space)               \
  SOURCE(sums)                      \
  SOURCE(symmetric)                 \
  SOURCE(systems)

namespace gptq {

#define GPTQ_OPENCL_SOURCE(file) std::string_view opencl_##file();
GPTQ_OPENCL_SOURCES(GPTQ_OPENCL_SOURCE)
#undef GPTQ_OPENCL_SOURCE

}  // namespace gptq
