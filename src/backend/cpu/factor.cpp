// The factorization and systems of equations: OpenBLAS calls on tiles, one per task.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <cblas.h>

#include "backend/cpu/blas.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/partition.h"

// LAPACK, part of OpenBLAS; the arguments are Fortran's.
// NOLINTBEGIN(readability-identifier-naming)
extern "C" {
void spotrf_(const char* triangle, const blasint* n, float* a, const blasint* lda, blasint* info);
void dposv_(const char* triangle, const blasint* n, const blasint* right_sides, double* a, const blasint* lda,
            double* b, const blasint* ldb, blasint* info);
}
// NOLINTEND(readability-identifier-naming)

namespace gptq::cpu {
namespace {

blasint as_blas(int64_t value) { return static_cast<blasint>(value); }

// Lower triangle of h -= x' x.   x [rows, n] f32, h [n, n] f32
// Columns are cut into about 8 pieces; a tile is a pair of them. The tiles on the diagonal cost half and come last.
void subtract_gram(CpuBackend& cpu, ConstMatrixView x, MatrixView h) {
  if (x.empty()) return;
  const Partition cut(h.rows, std::clamp<int64_t>(h.rows / 8, 144, 512));
  std::vector<std::pair<int64_t, int64_t>> tiles;
  for (int64_t i = 0; i < cut.count; ++i) {
    for (int64_t j = 0; j < i; ++j) tiles.emplace_back(i, j);
  }
  for (int64_t i = 0; i < cut.count; ++i) tiles.emplace_back(i, i);
  cpu.pool.for_each(static_cast<int64_t>(tiles.size()), [&](int64_t task) {
    const auto [i, j] = tiles[task];
    const float *a = x.row<float>(0) + cut.start(i), *b = x.row<float>(0) + cut.start(j);
    float* tile = h.row<float>(cut.start(i)) + cut.start(j);
    const BlasCall call;
    if (i == j) {
      cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, as_blas(cut.length(i)), as_blas(x.rows), -1, a,
                  as_blas(x.stride), 1, tile, as_blas(h.stride));
    } else {
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_blas(cut.length(i)), as_blas(cut.length(j)),
                  as_blas(x.rows), -1, a, as_blas(x.stride), b, as_blas(x.stride), 1, tile, as_blas(h.stride));
    }
  });
}

// Blocked, from the last rows upwards. With K a block of rows, J the columns before it, and all later blocks done:
//   h[K, K] = F[K, K]' F[K, K],  F[K, J] = inv(F[K, K]') h[K, J],  then h[J, J] -= F[K, J]' F[K, J].
bool factor(CpuBackend& cpu, const ops::Factor& op) {
  constexpr int64_t kBlock = 256;
  const int64_t n = op.h.rows;
  for (int64_t end = n; end > 0; end -= std::min(kBlock, end)) {
    const int64_t size = std::min(kBlock, end), start = end - size;
    const MatrixView diagonal = op.h.block(start, size, start, size);
    {
      // Reversed in rows and columns, h[K, K] = L L' is an ordinary Cholesky factorization, L the reversal of
      // F[K, K]'. Reading a dense array backwards does both; the row-major lower triangle of h becomes the
      // column-major lower triangle that LAPACK wants.
      ScratchPool::Lease lease = cpu.scratch.borrow(size * size);
      float* reversed = lease.take(size * size);
      for (int64_t r = 0; r < size; ++r) {
        std::reverse_copy(diagonal.row<float>(r), diagonal.row<float>(r) + size, reversed + (size - 1 - r) * size);
      }
      const blasint order = as_blas(size);
      blasint info = 0;
      {
        const BlasCall call;
        spotrf_("L", &order, reversed, &order, &info);
      }
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
    const MatrixView panel = op.h.block(start, size, 0, start);
    const Partition cut(start, 128);
    cpu.pool.for_each(cut.count, [&](int64_t i) {
      const BlasCall call;
      cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, as_blas(size), as_blas(cut.length(i)),
                  1, diagonal.row<float>(0), as_blas(diagonal.stride), panel.row<float>(0) + cut.start(i),
                  as_blas(panel.stride));
    });
    subtract_gram(cpu, panel, op.h.block(0, start, 0, start));
  }
  return true;
}

// Rows are independent: each task solves for some of them in place.
void solve_triangle(CpuBackend& cpu, const ops::SolveTriangle& op) {
  if (op.x.empty()) return;
  const Partition cut(op.x.rows, 128);
  cpu.pool.for_each(cut.count, [&](int64_t task) {
    const MatrixView part = op.x.row_range(cut.start(task), cut.length(task));
    const BlasCall call;
    cblas_strsm(CblasRowMajor, CblasRight, CblasLower, op.transposed ? CblasTrans : CblasNoTrans, CblasNonUnit,
                as_blas(part.rows), as_blas(part.cols), 1, op.factor.row<float>(0), as_blas(op.factor.stride),
                part.row<float>(0), as_blas(part.stride));
  });
}

// A task is a system; row-major's lower triangle is LAPACK's upper one.
void solve_systems(CpuBackend& cpu, const ops::SolveSystems& op) {
  const int64_t n = op.x.cols;
  if (op.x.empty()) return;
  cpu.pool.for_each(op.x.rows, [&](int64_t row) {
    const float* from = op.a.row<float>(row);
    float* to = op.x.row<float>(row);
    std::vector<double> matrix(from, from + n * n), solution(to, to + n);
    double trace = 0;
    for (int64_t i = 0; i < n; ++i) trace += matrix[i * (n + 1)];
    for (int64_t i = 0; i < n; ++i) matrix[i * (n + 1)] += op.ridge * trace / static_cast<double>(n);
    const blasint order = as_blas(n), one = 1;
    blasint info = 0;
    if (std::isfinite(trace)) {
      const BlasCall call;
      dposv_("U", &order, &one, matrix.data(), &order, solution.data(), &order, &info);
    }
    const bool solved = info == 0 && std::isfinite(trace);
    for (int64_t i = 0; i < n; ++i) to[i] = solved ? static_cast<float>(solution[i]) : 0.0F;
  });
}

}  // namespace

void add_factor_ops(CpuOps& table) {
  table.add<factor>();
  table.add<solve_triangle>();
  table.add<solve_systems>();
}

}  // namespace gptq::cpu
