// Products, Hessians, and the factorization with what is solved by it.
#include <algorithm>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels.h"
#include "base/error.h"
#include "base/rounding.h"

namespace gptq::cuda {
namespace {

void check(cublasStatus_t status, const std::string& device, const char* doing) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw DeviceError(cat(device, ": ", doing, ": ", cublasLtGetStatusString(status)));
}
void check(cusolverStatus_t status, const std::string& device, const char* doing) {
  if (status != CUSOLVER_STATUS_SUCCESS)
    throw DeviceError(cat(device, ": ", doing, ": cuSOLVER's status ", static_cast<int>(status)));
}

// The largest power of two up to 16 that divides the address and the bytes from row to row.
int64_t alignment_of(const ConstMatrixView& m) {
  const auto bits = reinterpret_cast<uintptr_t>(m.data) | static_cast<uintptr_t>(m.stride) * size_of(m.dtype) | 16U;
  return static_cast<int64_t>(bits & (~bits + 1));
}

}  // namespace

Multiplier& CudaBackend::multiplier() {
  if (multiplier_ == nullptr)
    multiplier_ = std::make_unique<Multiplier>(name_, stream_.get(), workspace(), static_cast<size_t>(kWorkspace));
  return *multiplier_;
}

cublasHandle_t CudaBackend::blas() {
  if (blas_ == nullptr) {
    cublasHandle_t handle = nullptr;
    check(cublasCreate(&handle), name_, "starting cuBLAS");
    blas_.reset(handle);
    check(cublasSetStream(handle, stream_.get()), name_, "starting cuBLAS");
    check(cublasSetWorkspace(handle, workspace(), static_cast<size_t>(kWorkspace)), name_, "starting cuBLAS");
  }
  return blas_.get();
}

cusolverDnHandle_t CudaBackend::solver() {
  if (solver_ == nullptr) {
    cusolverDnHandle_t handle = nullptr;
    check(cusolverDnCreate(&handle), name_, "starting cuSOLVER");
    solver_.reset(handle);
    check(cusolverDnSetStream(handle, stream_.get()), name_, "starting cuSOLVER");
  }
  return solver_.get();
}

void* CudaBackend::workspace() {
  if (workspace_.empty()) workspace_ = Matrix(*this, DType::u8, 1, kWorkspace);
  return workspace_.view().data;
}

Matrix CudaBackend::aligned_copy(ConstMatrixView x, DType dtype) {
  Matrix result(*this, dtype, x.rows, rounded_up(x.cols, 8));
  cuda::convert(x, result.view().col_range(0, x.cols), stream_.get());
  check_launch("copying an operand");
  return result;
}

// y = x w' in row-major terms is y' = w x' in cuBLAS's column-major ones.
void CudaBackend::linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, MatrixView y) {
  if (y.empty()) return;
  begin("linear");
  if (x.cols == 0) {
    clear(y);
    if (!bias.empty()) add_bias(bias, y, stream_.get());
    return check_launch("linear");
  }
  const int64_t alignment = std::min({alignment_of(x), alignment_of(w), alignment_of(y)});
  const bool one_type = x.dtype == w.dtype && (y.dtype == x.dtype || y.dtype == DType::f32);
  const bool bias_fits = bias.empty() || (bias.dtype == y.dtype && alignment_of(bias) == 16);
  if (!one_type || !bias_fits || (alignment < 16 && x.dtype != DType::f32)) {
    const Matrix wide_x = aligned_copy(x, DType::f32), wide_w = aligned_copy(w, DType::f32);
    Matrix wide_y(*this, DType::f32, y.rows, rounded_up(y.cols, 4));
    const MatrixView sums = wide_y.view().col_range(0, y.cols);
    linear(wide_x.view().col_range(0, x.cols), wide_w.view().col_range(0, w.cols), {}, sums);
    if (!bias.empty()) add_bias(bias, sums, stream_.get());
    cuda::convert(sums, y, stream_.get());
    return check_launch("linear");
  }
  // The column loop's products are narrow and long, and their rows are those of a weight, always as many: there the
  // inner dimension may be split by their number.
  constexpr int64_t kNarrow = 128, kLong = 512;
  const bool of_column_loop = x.dtype == DType::f32 && w.rows <= kNarrow && x.cols >= kLong;
  const Product product{.input = x.dtype,
                        .output = y.dtype,
                        .transpose_a = true,
                        .m = y.cols,
                        .n = y.rows,
                        .k = x.cols,
                        .lda = w.stride,
                        .ldb = x.stride,
                        .ldd = y.stride,
                        .alignment = alignment,
                        .rows_are_free = !of_column_loop};
  multiplier().multiply(product, w.data, x.data, bias.empty() ? nullptr : bias.data, y.data);
}

// The lower triangle as squares: the matrix is halved as long as the pieces keep the device busy; at each level the
// squares below the diagonal are one batch, and so are those on the diagonal in the end (whose upper halves are
// computed in vain). Tokens are summed in chunks, each added to h once: long sums on tensor cores lose bits.
void CudaBackend::add_gram_blocks(ConstMatrixView x, MatrixView h) {
  constexpr int64_t kTokens = 8192, kLeast = 1024, kGranularity = 16;
  const int64_t n = h.rows;
  int64_t levels = 0;
  while ((n >> (levels + 1)) >= kLeast && n % (kGranularity << (levels + 1)) == 0) ++levels;
  for (int64_t first = 0; first < x.rows; first += kTokens) {
    const ConstMatrixView chunk = x.row_range(first, std::min(kTokens, x.rows - first));
    const auto squares = [&](int64_t size, int64_t step, int64_t row, int64_t count) {
      const Product product{.input = x.dtype,
                            .output = DType::f32,
                            .transpose_b = true,
                            .m = size,
                            .n = size,
                            .k = chunk.rows,
                            .lda = x.stride,
                            .ldb = x.stride,
                            .ldd = h.stride,
                            .batch = count,
                            .step_a = step,
                            .step_b = step,
                            .step_d = step * (h.stride + 1),
                            .beta = 1,
                            .alignment = alignment_of(h)};
      multiplier().multiply(product, chunk.data, chunk.col_range(row, n - row).data, nullptr,
                            h.row_range(row, n - row).data);
    };
    for (int64_t level = 0; level < levels; ++level) {
      const int64_t size = n >> (level + 1);
      squares(size, 2 * size, size, int64_t{1} << level);
    }
    const int64_t size = n >> levels;
    squares(size, size, 0, int64_t{1} << levels);
  }
}

// Products of 16-bit inputs are exact in f32; f32 inputs are multiplied in f32.
void CudaBackend::add_gram(ConstMatrixView x, MatrixView h, MatrixView dropped) {
  if (h.empty() || x.rows == 0) return;
  begin("add_gram");
  Matrix finite(*this, x.dtype, x.rows, rounded_up(x.cols, 8));
  const MatrixView rows = finite.view().col_range(0, x.cols);
  keep_finite_rows(x, rows, dropped, stream_.get());
  if (alignment_of(h) == 16) {
    add_gram_blocks(rows, h);
  } else {
    Matrix aligned(*this, DType::f32, h.rows, rounded_up(h.cols, 4));
    const MatrixView sum = aligned.view().col_range(0, h.cols);
    cuda::convert(h, sum, stream_.get());
    add_gram_blocks(rows, sum);
    cuda::convert(sum, h, stream_.get());
  }
  check_launch("add_gram");
}

// h = F' F with F lower: of h reversed, cuSOLVER's lower triangle is row-major's upper, and reversed again it is F.
bool CudaBackend::factor(MatrixView h) {
  if (h.empty()) return true;
  begin("factor");
  const auto n = static_cast<int>(h.rows), stride = static_cast<int>(h.stride);
  auto* a = static_cast<float*>(h.data);
  int floats = 0;
  check(cusolverDnSpotrf_bufferSize(solver(), CUBLAS_FILL_MODE_LOWER, n, a, stride, &floats), name_, "factor");
  Matrix buffer(*this, DType::f32, 1, std::max(floats, 1)), verdict(*this, DType::i32, 1, 2);
  reverse(h, stream_.get());
  check(cusolverDnSpotrf(solver(), CUBLAS_FILL_MODE_LOWER, n, a, stride, buffer.row<float>(0), floats,
                         verdict.row<int32_t>(0)),
        name_, "factor");
  reverse(h, stream_.get());
  finish_factor(h, verdict.row<int32_t>(0) + 1, stream_.get());
  check_launch("factor");
  const std::vector<int32_t> said = to_host<int32_t>(*this, verdict);
  return said[0] == 0 && said[1] == 1;
}

// What is finite in both, then one product; sums over more tokens than a chunk lose bits on tensor cores.
void CudaBackend::add_cross_gram(ConstMatrixView x, ConstMatrixView original, MatrixView c) {
  if (c.empty() || x.rows == 0) return;
  begin("add_cross_gram");
  if (alignment_of(c) < 16) {
    Matrix aligned(*this, DType::f32, c.rows, rounded_up(c.cols, 4));
    const MatrixView sum = aligned.view().col_range(0, c.cols);
    cuda::convert(c, sum, stream_.get());
    add_cross_gram(x, original, sum);
    return cuda::convert(sum, c, stream_.get());
  }
  constexpr int64_t kTokens = 8192;
  const int64_t n = x.cols;
  Matrix values(*this, x.dtype, std::min(x.rows, kTokens), rounded_up(n, 8)),
      differences(*this, x.dtype, values.rows(), values.cols());
  for (int64_t first = 0; first < x.rows; first += kTokens) {
    const int64_t tokens = std::min(kTokens, x.rows - first);
    const MatrixView mine = values.view().block(0, tokens, 0, n),
                     difference = differences.view().block(0, tokens, 0, n);
    keep_finite_differences(x.row_range(first, tokens), original.row_range(first, tokens), mine, difference,
                            stream_.get());
    // Row-major c += mine' difference is, column-major, c' += difference' mine.
    const Product product{.input = x.dtype,
                          .output = DType::f32,
                          .transpose_b = true,
                          .m = n,
                          .n = n,
                          .k = tokens,
                          .lda = difference.stride,
                          .ldb = mine.stride,
                          .ldd = c.stride,
                          .beta = 1};
    multiplier().multiply(product, difference.data, mine.data, nullptr, c.data);
  }
  check_launch("add_cross_gram");
}

// Row-major y F = x is, column-major, F' y' = x' with F' upper; cuBLAS sees F's memory as that upper triangle.
void CudaBackend::solve_triangle(ConstMatrixView factor, bool transposed, MatrixView x) {
  if (x.empty()) return;
  begin("solve_triangle");
  const float one = 1;
  check(cublasStrsm(blas(), CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_UPPER, transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                    CUBLAS_DIAG_NON_UNIT, static_cast<int>(x.cols), static_cast<int>(x.rows), &one,
                    static_cast<const float*>(factor.data), static_cast<int>(factor.stride),
                    static_cast<float*>(x.data), static_cast<int>(x.stride)),
        name_, "solve_triangle");
  check_launch("solve_triangle");
}

// A few hundred systems at a time, as doubles. The lower triangle of a row-major matrix is a column-major upper one.
void CudaBackend::solve_systems(ConstMatrixView a, float ridge, MatrixView x) {
  if (x.empty()) return;
  begin("solve_systems");
  constexpr int64_t kBytes = int64_t{64} << 20;
  const int64_t n = x.cols, most = std::clamp<int64_t>(kBytes / (n * n * 8), 1, x.rows);
  const auto doubles = [&](int64_t count) { return Matrix(*this, DType::u8, 1, count * 8); };
  Matrix matrices = doubles(most * n * n), sides = doubles(most * n), places = doubles(2 * most),
         info(*this, DType::i32, 1, most + 1);
  auto* matrix_data = static_cast<double*>(matrices.view().data);
  auto* side_data = static_cast<double*>(sides.view().data);
  auto** addresses = static_cast<double**>(places.view().data);
  auto* verdicts = info.row<int32_t>(0);
  for (int64_t first = 0; first < x.rows; first += most) {
    const int64_t count = std::min(most, x.rows - first);
    const MatrixView part = x.row_range(first, count);
    widen_systems(a.row_range(first, count), part, ridge, matrix_data, side_data, addresses, stream_.get());
    const auto order = static_cast<int>(n), systems = static_cast<int>(count);
    check(cusolverDnDpotrfBatched(solver(), CUBLAS_FILL_MODE_UPPER, order, addresses, order, verdicts, systems), name_,
          "solve_systems");
    check(cusolverDnDpotrsBatched(solver(), CUBLAS_FILL_MODE_UPPER, order, 1, addresses, order, addresses + count,
                                  order, verdicts + most, systems),
          name_, "solve_systems");
    narrow_solutions(side_data, verdicts, part, stream_.get());
  }
  check_launch("solve_systems");
}

void CudaBackend::add_product_norms(ConstMatrixView w, ConstMatrixView factor, MatrixView norms) {
  if (w.empty()) return;
  begin("add_product_norms");
  constexpr int64_t kPanel = 1024;
  for (int64_t first = 0; first < w.cols; first += kPanel) {
    const int64_t count = std::min(kPanel, w.cols - first);
    Matrix diagonal(*this, DType::f32, count, rounded_up(count, 4)), y(*this, DType::f32, w.rows, rounded_up(count, 4));
    copy_lower(factor.block(first, count, first, count), diagonal.view().col_range(0, count), stream_.get());
    Product product{.transpose_a = true, .tf32 = true, .m = count, .n = w.rows, .ldb = w.stride, .ldd = y.cols()};
    const auto multiply = [&](ConstMatrixView f, ConstMatrixView part) {
      product.k = f.cols;
      product.lda = f.stride;
      product.alignment = std::min(alignment_of(f), alignment_of(part));
      multiplier().multiply(product, f.data, part.data, nullptr, y.view().data);
      product.beta = 1;
    };
    if (first > 0) multiply(factor.block(first, count, 0, first), w.col_range(0, first));
    multiply(diagonal.view().col_range(0, count), w.col_range(first, count));
    cuda::add_row_norms(y.view().col_range(0, count), norms, stream_.get());
  }
  check_launch("add_product_norms");
}

}  // namespace gptq::cuda
