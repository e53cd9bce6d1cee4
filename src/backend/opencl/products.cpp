#include "backend/opencl/products.h"

#include <cstdlib>
#include <string>
#include <string_view>

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

// How products.cl is divided: threads on each side of a work-group, elements on each side of a thread.
struct Tiling {
  int64_t side, each;
  int64_t tile() const { return side * each; }
  std::string options() const { return cat("-DSIDE=", side, " -DEACH=", each); }
};

// Large tiles read the least, small ones of many threads keep a device busy where there are few. A CPU computes a
// work-group by one thread. The variable GPTQ_OPENCL_TILES is for tests: "large", "small" or "cpu".
Tiling tiling_for(const DeviceFacts& device, const Product& product) {
  constexpr Tiling kOfCpu = {8, 8}, kLarge = {16, 8}, kSmall = {16, 4};
  if (const char* asked = std::getenv("GPTQ_OPENCL_TILES"); asked != nullptr)
    return asked == std::string_view("large") ? kLarge : asked == std::string_view("small") ? kSmall : kOfCpu;
  if (device.is_cpu) return kOfCpu;
  const int64_t tiles = pieces_of(product.c.rows, kLarge.tile()) * pieces_of(product.c.cols, kLarge.tile());
  return tiles / (product.lower ? 2 : 1) >= device.compute_units ? kLarge : kSmall;
}

}  // namespace

void multiply(Xpu& xpu, const Product& product) {
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
  const auto grid_of = [&](int64_t tile, std::array<int64_t, 3> threads) {
    return Grid{{pieces_of(n, tile), pieces_of(m, tile), 1}, threads};
  };
  if (const std::string options = matrix_options(xpu.device(), product); !options.empty()) {
    return xpu.launch({"matrix_products", "multiply_matrix", options}, grid_of(64, {64, 1, 1}), product.a, product.b,
                      product.bias, product.kept, product.c, sizes);
  }
  const Tiling tiling = tiling_for(xpu.device(), product);
  xpu.launch({"products", "multiply", tiling.options()}, grid_of(tiling.tile(), {tiling.side, tiling.side, 1}),
             product.a, product.b, product.bias, product.kept, product.c, sizes);
}

}  // namespace gptq::opencl
