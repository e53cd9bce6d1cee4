#include "backend/opencl/products.h"

#include <string>

#include "base/error.h"

namespace gptq::opencl {
namespace {

// Product of kernels/products.cl.
struct Sizes {
  cl_long m, n, k;
  cl_int a_by_columns, b_by_columns, lower, b_lower;
  cl_float alpha;
  cl_int adds;
};

// The options of matrix_products.cl for these operands; none where the device has no matrix units for them.
std::string matrix_options(const DeviceFacts& device, const Product& product) {
  const DType dtype = product.a.dtype;
  if (device.matrix_lanes == 0 || product.b.dtype != dtype || dtype == DType::f32 || product.b_lower) return {};
  return cat("-DLANES=", device.matrix_lanes, " -DELEMENT=", dtype == DType::bf16 ? "BF16" : "F16",
             device.emulates_matrices ? " -DEMULATED" : "");
}

}  // namespace

void multiply(Xpu& xpu, const Product& product) {
  constexpr int64_t kTile = 64, kThreads = 8;
  const int64_t m = product.c.rows, n = product.c.cols;
  const Sizes sizes = {m,
                       n,
                       product.a_by_columns ? product.a.rows : product.a.cols,
                       product.a_by_columns,
                       product.b_by_columns,
                       product.lower,
                       product.b_lower,
                       product.alpha,
                       product.adds};
  const int64_t wide = pieces_of(n, kTile), high = pieces_of(m, kTile);
  if (const std::string options = matrix_options(xpu.device(), product); !options.empty()) {
    return xpu.launch({"matrix_products", "multiply_matrix", options},
                      Grid{{wide, high, 1}, {kThreads * kThreads, 1, 1}}, product.a, product.b, product.bias,
                      product.kept, product.c, sizes);
  }
  const Grid tiles = {{wide, high, 1}, {kThreads, kThreads, 1}};
  xpu.launch({"products", "multiply"}, tiles, product.a, product.b, product.bias, product.kept, product.c, sizes);
}

}  // namespace gptq::opencl
