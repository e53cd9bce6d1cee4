#include "backend/opencl/products.h"

namespace gptq::opencl {
namespace {

// Product of kernels/products.cl.
struct Sizes {
  cl_long m, n, k;
  cl_int a_by_columns, b_by_columns, lower, b_lower;
  cl_float alpha;
  cl_int adds;
};

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
  const Grid tiles = {{pieces_of(n, kTile), pieces_of(m, kTile), 1}, {kThreads, kThreads, 1}};
  xpu.launch({"products", "multiply"}, tiles, product.a, product.b, product.bias, product.kept, product.c, sizes);
}

}  // namespace gptq::opencl
