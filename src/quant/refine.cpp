#include "quant/refine.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "quant/hessian.h"

namespace gptq {
namespace {

constexpr int64_t kBlock = kMostColumns;

}  // namespace

// With E = T - Q and G = E H, the best value of column k is q_k + G_k / H_kk, and moving it by d subtracts d H_kj from
// each later G_j. That is the column loop with Q in place of W, G in place of the feedback and H in place of the
// factor. G of a block is one product with all of E after the previous blocks.
void sweep_codes(Backend& backend, ConstMatrixView T, ConstMatrixView H, Quantized& quantized) {
  const int64_t rows = T.rows, n = T.cols;
  const std::span<const int32_t> groups = quantized.g_idx;
  Matrix Q(backend, DType::f32, rows, n), E(backend, DType::f32, rows, n);
  dequantize(backend, quantized, Q);
  backend.run(ops::Convert{.x = T, .y = E});
  backend.run(ops::Add{.x = Q, .factor = -1, .y = E});
  Matrix unused = zeros(backend, DType::f32, rows, 1);
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t count = std::min(kBlock, n - first);
    Matrix G(backend, DType::f32, rows, count), D(backend, DType::f32, rows, count);
    backend.run(ops::Linear{.x = E, .w = H.row_range(first, count), .y = G});
    backend.run(ops::QuantizeColumns{.w = Q.view().col_range(first, count),
                                     .feedback = G,
                                     .factor = H.block(first, count, first, count),
                                     .groups = groups.subspan(first, count),
                                     .grid = quantized.grid(),
                                     .codes = quantized.codes.view().col_range(first, count),
                                     .errors = D,
                                     .loss = unused});
    backend.run(ops::Add{.x = D, .factor = 1, .y = E.view().col_range(first, count)});  // D = Q before - Q after
  }
}

// With C the codes minus their zeros, the scales s of row r solve A s = b: A_gh = c_g' H_gh c_h and b_g = c_g' (H t)_g.
void refit_scales(Backend& backend, ConstMatrixView T, ConstMatrixView H, bool negative_allowed, Quantized& quantized) {
  constexpr int64_t kElements = int64_t{1} << 25;  // of the temporaries of the rows computed at once
  constexpr float kRidge = 1e-6F;
  const int64_t rows = T.rows, n = T.cols, groups = quantized.scales.cols(), size = n / groups;
  const int64_t at_once = std::clamp<int64_t>(kElements / (n + groups * groups), 1, rows);
  const std::vector<float> ones(static_cast<size_t>(at_once * groups), 1.0F);
  const Matrix unit = to_device(backend, DType::f32, at_once, groups, ones.data());

  for (int64_t first = 0; first < rows; first += at_once) {
    const int64_t count = std::min(at_once, rows - first);
    Matrix C(backend, DType::f32, count, n), product(backend, DType::f32, count, n);
    Matrix A(backend, DType::f32, count, groups * groups), s(backend, DType::f32, count, groups);
    backend.run(ops::Dequantize{
        .codes = quantized.codes.view().row_range(first, count),
        .groups = quantized.g_idx,
        .grid = {unit.view().row_range(0, count), quantized.zeros.view().row_range(first, count), quantized.bits},
        .w = C});
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t width = (g + 1) * size;  // columns of groups 0 to g: A's lower triangle
      const MatrixView part = product.view().col_range(0, width);
      backend.run(
          ops::Linear{.x = C.view().col_range(g * size, size), .w = H.block(0, width, g * size, size), .y = part});
      backend.run(ops::GroupProducts{.x = C.view().col_range(0, width),
                                     .y = part,
                                     .group_size = size,
                                     .products = A.view().col_range(g * groups, g + 1)});
    }
    backend.run(ops::Linear{.x = T.row_range(first, count), .w = H, .y = product});
    backend.run(ops::GroupProducts{.x = C, .y = product, .group_size = size, .products = s});
    backend.run(ops::SolveSystems{.a = A, .ridge = kRidge, .x = s});

    const MatrixView scales = quantized.scales.view().row_range(first, count);
    const std::vector<float> fitted = to_host<float>(backend, s);
    std::vector<float> kept = to_host<float>(backend, scales);
    for (size_t i = 0; i < kept.size(); ++i) {
      const float scale = static_cast<float>(Half(fitted[i]));
      if (std::isfinite(scale) && scale != 0 && (scale > 0 || negative_allowed)) kept[i] = scale;
    }
    backend.upload(scales, kept.data());
  }
}

}  // namespace gptq
