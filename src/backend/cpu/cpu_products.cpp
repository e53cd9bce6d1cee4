// Matrix products and the factorization: tiles of sgemm, each the work of one thread.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <cblas.h>

#include "backend/cpu/cpu_backend.h"

// LAPACK, part of OpenBLAS; the arguments are Fortran's.
extern "C" {
void spotrf_(const char* triangle, const blasint* n, float* a, const blasint* lda, blasint* info);
void dposv_(const char* triangle, const blasint* n, const blasint* right_sides, double* a, const blasint* lda,
            double* b, const blasint* ldb, blasint* info);
}

namespace gptq {
namespace {

// A range cut evenly into pieces of at most `edge`, their borders at multiples of 16 where possible.
struct Cut {
  int64_t size, piece, count;
  Cut(int64_t size, int64_t edge) : size(size) {
    const int64_t pieces = std::max<int64_t>(1, (size + edge - 1) / edge);
    piece = ((size + pieces - 1) / pieces + 15) / 16 * 16;
    count = (size + piece - 1) / piece;
  }
  int64_t start(int64_t i) const { return i * piece; }
  int64_t length(int64_t i) const { return std::min(piece, size - start(i)); }
};

struct TileShape {
  int64_t rows, cols;
};

// Tiles of an [m, n] product: the largest that still give 16 of them to share. Tall ones come first, as sgemm is the
// faster on them; it reaches 95 % of its peak even on the smallest.
TileShape tile_shape(int64_t m, int64_t n) {
  constexpr int64_t kTiles = 16;
  constexpr TileShape kShapes[] = {{512, 512}, {512, 256}, {256, 256}, {256, 128}, {128, 128}, {128, 64}};
  for (const TileShape& shape : kShapes) {
    if (Cut(m, shape.rows).count * Cut(n, shape.cols).count >= kTiles) return shape;
  }
  return {64, 64};
}

blasint as_blas(int64_t value) { return static_cast<blasint>(value); }

// Inner dimensions of products whose inputs must be widened to f32 are cut into pieces of this length.
constexpr int64_t kPanel = 1024;

}  // namespace

void CpuBackend::linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, MatrixView y) {
  if (y.empty()) return;
  const TileShape shape = tile_shape(y.rows, y.cols);
  const Cut rows(y.rows, shape.rows), cols(y.cols, shape.cols);
  const bool widen_x = x.dtype != DType::f32, widen_w = w.dtype != DType::f32, narrow_y = y.dtype != DType::f32;
  const int64_t panel = widen_x || widen_w ? kPanel : std::max<int64_t>(x.cols, 1);

  // Neighbouring tasks share a panel of w.
  pool_.for_each(rows.count * cols.count, [&](int64_t task) {
    const int64_t i = task % rows.count, j = task / rows.count, m = rows.length(i), n = cols.length(j);
    const ConstMatrixView tile_x = x.row_range(rows.start(i), m), tile_w = w.row_range(cols.start(j), n);
    const MatrixView tile_y = y.block(rows.start(i), m, cols.start(j), n);
    const int64_t x_floats = widen_x ? m * panel : 0, w_floats = widen_w ? n * panel : 0,
                  y_floats = narrow_y ? m * n : 0;
    ScratchPool::Lease lease = scratch_.borrow(x_floats + w_floats + y_floats + n, 4);
    float *wide_x = lease.take(x_floats), *wide_w = lease.take(w_floats), *wide_y = lease.take(y_floats),
          *wide_bias = lease.take(n);

    float* sums = narrow_y ? wide_y : tile_y.row<float>(0);
    const int64_t stride = narrow_y ? n : tile_y.stride;
    if (x.cols == 0) {
      for (int64_t r = 0; r < m; ++r) std::fill_n(sums + r * stride, n, 0.0F);
    }
    const auto widened = [&](ConstMatrixView part, float* wide) {
      for (int64_t r = 0; r < part.rows; ++r) as_f32(part, r, wide + r * part.cols);
      return ConstMatrixView(wide, DType::f32, part.rows, part.cols);
    };
    for (int64_t start = 0; start < x.cols; start += panel) {
      const int64_t k = std::min(panel, x.cols - start);
      ConstMatrixView a = tile_x.col_range(start, k), b = tile_w.col_range(start, k);
      if (widen_x) a = widened(a, wide_x);
      if (widen_w) b = widened(b, wide_w);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, as_blas(m), as_blas(n), as_blas(k), 1, a.row<float>(0),
                  as_blas(a.stride), b.row<float>(0), as_blas(b.stride), start == 0 ? 0.0F : 1.0F, sums,
                  as_blas(stride));
    }
    if (!bias.empty()) {
      const float* addend = as_f32(bias.col_range(cols.start(j), n), 0, wide_bias);
      for (int64_t r = 0; r < m; ++r) kernels_.add(addend, 1, sums + r * stride, n);
    }
    if (narrow_y) {
      for (int64_t r = 0; r < m; ++r) finish_row(sums + r * n, tile_y, r);
    }
  });
}

// Columns are cut into about 8 pieces; a tile is a pair of them. The tiles on the diagonal cost half and come last.
void CpuBackend::add_gram_tiles(float alpha, ConstMatrixView x, MatrixView h) {
  if (x.empty()) return;
  const Cut cut(h.rows, std::clamp<int64_t>(h.rows / 8, 144, 512));
  std::vector<std::pair<int64_t, int64_t>> tiles;
  for (int64_t i = 0; i < cut.count; ++i) {
    for (int64_t j = 0; j < i; ++j) tiles.emplace_back(i, j);
  }
  for (int64_t i = 0; i < cut.count; ++i) tiles.emplace_back(i, i);
  pool_.for_each(static_cast<int64_t>(tiles.size()), [&](int64_t task) {
    const auto [i, j] = tiles[task];
    const float *a = x.row<float>(0) + cut.start(i), *b = x.row<float>(0) + cut.start(j);
    float* tile = h.row<float>(cut.start(i)) + cut.start(j);
    if (i == j) {
      cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, as_blas(cut.length(i)), as_blas(x.rows), alpha, a,
                  as_blas(x.stride), 1, tile, as_blas(h.stride));
    } else {
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_blas(cut.length(i)), as_blas(cut.length(j)),
                  as_blas(x.rows), alpha, a, as_blas(x.stride), b, as_blas(x.stride), 1, tile, as_blas(h.stride));
    }
  });
}

void CpuBackend::add_gram(ConstMatrixView x, MatrixView h, MatrixView dropped) {
  if (x.empty()) return;
  std::vector<uint8_t> finite(static_cast<size_t>(x.rows));
  for_rows(x.rows, x.cols, 1, [&](int64_t row, float* scratch) {
    finite[row] = kernels_.all_finite(as_f32(x, row, scratch), x.cols) ? 1 : 0;
  });
  std::vector<int64_t> kept;
  for (int64_t row = 0; row < x.rows; ++row) {
    if (finite[row] != 0) kept.push_back(row);
  }
  const auto count = static_cast<int64_t>(kept.size());
  dropped.row<int32_t>(0)[0] += static_cast<int32_t>(x.rows - count);
  if (x.dtype == DType::f32 && count == x.rows) {
    add_gram_tiles(1, x, h);
    return;
  }
  constexpr int64_t kTokens = 2048;  // copied to f32 at a time
  Matrix copy(host_memory(), DType::f32, std::min(count, kTokens), x.cols);
  for (int64_t start = 0; start < count; start += kTokens) {
    const int64_t tokens = std::min(kTokens, count - start);
    for_rows(tokens, x.cols, 0, [&](int64_t row, float*) {
      float* to = copy.row<float>(row);
      const float* values = as_f32(x, kept[start + row], to);
      if (values != to) std::copy_n(values, x.cols, to);
    });
    add_gram_tiles(1, copy.view().row_range(0, tokens), h);
  }
}

// Blocked, from the last rows upwards. With K a block of rows, J the columns before it, and all later blocks done:
//   h[K, K] = F[K, K]' F[K, K],  F[K, J] = inv(F[K, K]') h[K, J],  then h[J, J] -= F[K, J]' F[K, J].
bool CpuBackend::factor(MatrixView h) {
  constexpr int64_t kBlock = 256;
  const int64_t n = h.rows;
  for (int64_t end = n; end > 0; end -= std::min(kBlock, end)) {
    const int64_t size = std::min(kBlock, end), start = end - size;
    const MatrixView diagonal = h.block(start, size, start, size);
    {
      // Reversed in rows and columns, h[K, K] = L L' is an ordinary Cholesky factorization, L the reversal of
      // F[K, K]'. Reading a dense array backwards does both; the row-major lower triangle of h becomes the
      // column-major lower triangle that LAPACK wants.
      ScratchPool::Lease lease = scratch_.borrow(size * size);
      float* reversed = lease.take(size * size);
      for (int64_t r = 0; r < size; ++r) {
        std::reverse_copy(diagonal.row<float>(r), diagonal.row<float>(r) + size, reversed + (size - 1 - r) * size);
      }
      const blasint order = as_blas(size);
      blasint info = 0;
      spotrf_("L", &order, reversed, &order, &info);
      if (info != 0) return false;
      for (int64_t r = 0; r < size; ++r) {
        const float pivot = reversed[r * (size + 1)];
        if (!(pivot > 0) || !std::isfinite(pivot)) return false;
      }
      for (int64_t r = 0; r < size; ++r) {
        const float* from = reversed + (size - 1 - r) * size + size - 1;
        for (int64_t c = 0; c <= r; ++c) diagonal.row<float>(r)[c] = from[-c];
      }
    }
    if (start == 0) break;
    const MatrixView panel = h.block(start, size, 0, start);
    const Cut cut(start, 128);
    pool_.for_each(cut.count, [&](int64_t i) {
      cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, as_blas(size), as_blas(cut.length(i)),
                  1, diagonal.row<float>(0), as_blas(diagonal.stride), panel.row<float>(0) + cut.start(i),
                  as_blas(panel.stride));
    });
    add_gram_tiles(-1, panel, h.block(0, start, 0, start));
  }
  return true;
}

// A tile of the product needs the columns of w up to its own: its diagonal block by a triangular product, the rest by
// a plain one. The longest tiles come first. Each writes the sums of its rows, which are then added in order.
void CpuBackend::add_product_norms(ConstMatrixView w, ConstMatrixView factor, MatrixView norms) {
  if (w.empty()) return;
  const Cut rows(w.rows, 256), cols(w.cols, 256);
  std::vector<float> sums(static_cast<size_t>(w.rows * cols.count));  // [rows, tiles across]
  pool_.for_each(rows.count * cols.count, [&](int64_t task) {
    const int64_t i = task % rows.count, j = cols.count - 1 - task / rows.count;
    const int64_t m = rows.length(i), n = cols.length(j), first = cols.start(j);
    ScratchPool::Lease lease = scratch_.borrow(m * n);
    float* product = lease.take(m * n);
    const ConstMatrixView x = w.row_range(rows.start(i), m), f = factor.row_range(first, n);
    for (int64_t r = 0; r < m; ++r) std::copy_n(x.row<float>(r) + first, n, product + r * n);
    cblas_strmm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, as_blas(m), as_blas(n), 1,
                f.row<float>(0) + first, as_blas(f.stride), product, as_blas(n));
    if (first > 0) {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, as_blas(m), as_blas(n), as_blas(first), 1, x.row<float>(0),
                  as_blas(x.stride), f.row<float>(0), as_blas(f.stride), 1, product, as_blas(n));
    }
    for (int64_t r = 0; r < m; ++r) {
      sums[(rows.start(i) + r) * cols.count + j] = kernels_.sum_of_squares(product + r * n, n);
    }
  });
  for (int64_t row = 0; row < w.rows; ++row) {
    const auto of_row = std::span(sums).subspan(static_cast<size_t>(row * cols.count), static_cast<size_t>(cols.count));
    norms.row<float>(row)[0] += std::accumulate(of_row.begin(), of_row.end(), 0.0F);
  }
}

// Rows are independent: each task solves for some of them in place.
void CpuBackend::solve_triangle(ConstMatrixView factor, bool transposed, MatrixView x) {
  if (x.empty()) return;
  const Cut cut(x.rows, 128);
  pool_.for_each(cut.count, [&](int64_t task) {
    const MatrixView part = x.row_range(cut.start(task), cut.length(task));
    cblas_strsm(CblasRowMajor, CblasRight, CblasLower, transposed ? CblasTrans : CblasNoTrans, CblasNonUnit,
                as_blas(part.rows), as_blas(part.cols), 1, factor.row<float>(0), as_blas(factor.stride),
                part.row<float>(0), as_blas(part.stride));
  });
}

// A task is a system; row-major's lower triangle is LAPACK's upper one.
void CpuBackend::solve_systems(ConstMatrixView a, float ridge, MatrixView x) {
  const int64_t n = x.cols;
  if (x.empty()) return;
  pool_.for_each(x.rows, [&](int64_t row) {
    const float* from = a.row<float>(row);
    float* to = x.row<float>(row);
    std::vector<double> matrix(from, from + n * n), solution(to, to + n);
    double trace = 0;
    for (int64_t i = 0; i < n; ++i) trace += matrix[i * (n + 1)];
    for (int64_t i = 0; i < n; ++i) matrix[i * (n + 1)] += ridge * trace / static_cast<double>(n);
    const blasint order = as_blas(n), one = 1;
    blasint info = 0;
    if (std::isfinite(trace)) dposv_("U", &order, &one, matrix.data(), &order, solution.data(), &order, &info);
    const bool solved = info == 0 && std::isfinite(trace);
    for (int64_t i = 0; i < n; ++i) to[i] = solved ? static_cast<float>(solution[i]) : 0.0F;
  });
}

// Rows that are finite in both are copied together with their differences, a few thousand at a time.
void CpuBackend::add_cross_gram(ConstMatrixView x, ConstMatrixView original, MatrixView c) {
  if (x.empty()) return;
  constexpr int64_t kTokens = 2048;
  const int64_t n = x.cols;
  Matrix values(host_memory(), DType::f32, std::min(x.rows, kTokens), n);
  Matrix differences(host_memory(), x.dtype, values.rows(), n), wide(host_memory(), DType::f32, values.rows(), n);
  for (int64_t start = 0; start < x.rows; start += kTokens) {
    const int64_t tokens = std::min(kTokens, x.rows - start);
    for_rows(tokens, n, 2, [&](int64_t row, float* scratch) {
      float *mine = values.row<float>(row), *difference = wide.row<float>(row);
      const float* theirs = as_f32(original, start + row, scratch);
      const float* own = as_f32(x, start + row, scratch + n);
      const bool finite = kernels_.all_finite(own, n) && kernels_.all_finite(theirs, n);
      std::copy_n(own, n, mine);
      std::copy_n(theirs, n, difference);
      if (!finite) {
        std::fill_n(mine, n, 0.0F);
        std::fill_n(difference, n, 0.0F);
      }
      kernels_.add(mine, -1, difference, n);
      if (x.dtype == DType::f32) return;
      finish_row(difference, differences, row);  // rounds to x's dtype, and back
      std::copy_n(as_f32(differences, row, scratch), n, difference);
    });
    const Cut cut(n, std::clamp<int64_t>(n / 8, 144, 512));
    pool_.for_each(cut.count * cut.count, [&](int64_t task) {
      const int64_t i = task / cut.count, j = task % cut.count;
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_blas(cut.length(i)), as_blas(cut.length(j)),
                  as_blas(tokens), 1, values.row<float>(0) + cut.start(i), as_blas(n),
                  wide.row<float>(0) + cut.start(j), as_blas(n), 1, c.row<float>(cut.start(i)) + cut.start(j),
                  as_blas(c.stride));
    });
  }
}

}  // namespace gptq
