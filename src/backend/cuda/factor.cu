// The factorization of a Hessian by cuSOLVER, triangular systems by cuBLAS, many small systems by cuSOLVER in f64; and
// the kernels that prepare their operands, which memory bandwidth limits.
#include <algorithm>
#include <cstdint>

#include <cublas_v2.h>
#include <cusolverDn.h>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/gpu.h"
#include "backend/cuda/library_errors.h"
#include "ops/factor.h"

namespace gptq::cuda {
namespace {

constexpr int kThreads = 256;

// Each thread swaps one pair of elements that are each other's mirror images.
__global__ void reverse_kernel(float* h, int64_t stride, int64_t n) {
  const int64_t half = (n * n) / 2, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < half; i += step) {
    const int64_t r = i / n, c = i - r * n;
    float &a = h[r * stride + c], &b = h[(n - 1 - r) * stride + n - 1 - c];
    const float kept = a;
    a = b;
    b = kept;
  }
}

__global__ void finish_factor_kernel(float* h, int64_t stride, int64_t n, int32_t* ok) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n * n; i += step) {
    const int64_t r = i / n, c = i - r * n;
    if (c > r) h[r * stride + c] = 0;
    // Written by one value only, so that the order does not matter.
    if (c == r && !(h[r * stride + c] > 0 && h[r * stride + c] < INFINITY)) *ok = 0;
  }
}

__global__ void set_kernel(int32_t* place, int32_t value) { *place = value; }

unsigned blocks_for(int64_t elements) {
  return static_cast<unsigned>(std::clamp<int64_t>((elements + kThreads - 1) / kThreads, 1, 1 << 16));
}

// Reverses the order of rows and of columns, in place.   h [n, n] f32
void reverse(MatrixView h, cudaStream_t stream) {
  if (h.rows < 1) return;
  reverse_kernel<<<blocks_for(h.rows * h.rows / 2), kThreads, 0, stream>>>(static_cast<float*>(h.data), h.stride,
                                                                           h.rows);
}

// After a Cholesky factorization: zeros above the diagonal, and ok[0] = 1 where each element of the diagonal is
// positive and finite, else 0.   h [n, n] f32
void finish_factor(MatrixView h, int32_t* ok, cudaStream_t stream) {
  set_kernel<<<1, 1, 0, stream>>>(ok, 1);
  if (h.empty()) return;
  finish_factor_kernel<<<blocks_for(h.size()), kThreads, 0, stream>>>(static_cast<float*>(h.data), h.stride, h.rows,
                                                                      ok);
}

// One block per system. Its first warp sums the diagonal, in the order of the lanes.
__global__ void widen_systems_kernel(const float* a, int64_t a_stride, const float* x, int64_t x_stride, int64_t n,
                                     float ridge, double* matrices, double* sides, double** addresses) {
  __shared__ double shift;
  const int64_t system = blockIdx.x;
  const float* from = a + system * a_stride;
  double* matrix = matrices + system * n * n;
  double* side = sides + system * n;
  if (threadIdx.x < 32) {
    double trace = 0;
    for (int64_t i = threadIdx.x; i < n; i += 32) trace += from[i * (n + 1)];
    for (int apart = 16; apart > 0; apart /= 2) trace += __shfl_xor_sync(0xffffffffU, trace, apart);
    if (threadIdx.x == 0) {
      shift = ridge * trace / static_cast<double>(n);
      addresses[system] = matrix;
      addresses[gridDim.x + system] = side;
    }
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < n * n; i += kThreads) {
    const int64_t r = i / n, c = i - r * n;
    matrix[i] = c > r ? 0.0 : from[i] + (c == r ? shift : 0.0);
  }
  for (int64_t i = threadIdx.x; i < n; i += kThreads) side[i] = x[system * x_stride + i];
}

// One block per system.
__global__ void narrow_solutions_kernel(const double* sides, const int32_t* info, int64_t n, float* x,
                                        int64_t x_stride) {
  const double* side = sides + blockIdx.x * n;
  bool good = info[blockIdx.x] == 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) good = good && isfinite(side[i]);
  good = __syncthreads_and(good) != 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads)
    x[blockIdx.x * x_stride + i] = good ? static_cast<float>(side[i]) : 0;
}

// For each row: the doubles of A_r + ridge mean(diag A_r) I, dense, and of x_r; addresses[r], addresses[rows + r]:
// where they are.   a [rows, n * n] f32, x [rows, n] f32
void widen_systems(ConstMatrixView a, ConstMatrixView x, float ridge, double* matrices, double* sides,
                   double** addresses, cudaStream_t stream) {
  if (x.empty()) return;
  widen_systems_kernel<<<static_cast<unsigned>(x.rows), kThreads, 0, stream>>>(
      static_cast<const float*>(a.data), a.stride, static_cast<const float*>(x.data), x.stride, x.cols, ridge, matrices,
      sides, addresses);
}

// x = the solutions; zeros in rows whose info is not 0 or whose solution is not finite.
void narrow_solutions(const double* sides, const int32_t* info, MatrixView x, cudaStream_t stream) {
  if (x.empty()) return;
  narrow_solutions_kernel<<<static_cast<unsigned>(x.rows), kThreads, 0, stream>>>(
      sides, info, x.cols, static_cast<float*>(x.data), x.stride);
}

// h = F' F with F lower: with h reversed, cuSOLVER's lower triangle is the row-major upper one; reversed back it is F.
bool factor(Gpu& gpu, const ops::Factor& op) {
  const MatrixView h = op.h;
  if (h.empty()) return true;
  const auto n = static_cast<int>(h.rows), stride = static_cast<int>(h.stride);
  auto* a = static_cast<float*>(h.data);
  int floats = 0;
  check(cusolverDnSpotrf_bufferSize(gpu.solver(), CUBLAS_FILL_MODE_LOWER, n, a, stride, &floats), gpu.name(), "factor");
  Matrix buffer(gpu.memory(), DType::f32, 1, std::max(floats, 1)), verdict(gpu.memory(), DType::i32, 1, 2);
  reverse(h, gpu.stream());
  check(cusolverDnSpotrf(gpu.solver(), CUBLAS_FILL_MODE_LOWER, n, a, stride, buffer.row<float>(0), floats,
                         verdict.row<int32_t>(0)),
        gpu.name(), "factor");
  reverse(h, gpu.stream());
  finish_factor(h, verdict.row<int32_t>(0) + 1, gpu.stream());
  int32_t said[2] = {};
  gpu.fetch(verdict, said);
  return said[0] == 0 && said[1] == 1;
}

// Row-major y F = x is, column-major, F' y' = x' with F' upper; cuBLAS sees F's memory as that upper triangle.
void solve_triangle(Gpu& gpu, const ops::SolveTriangle& op) {
  if (op.x.empty()) return;
  const float one = 1;
  check(cublasStrsm(gpu.blas(), CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_UPPER, op.transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                    CUBLAS_DIAG_NON_UNIT, static_cast<int>(op.x.cols), static_cast<int>(op.x.rows), &one,
                    static_cast<const float*>(op.factor.data), static_cast<int>(op.factor.stride),
                    static_cast<float*>(op.x.data), static_cast<int>(op.x.stride)),
        gpu.name(), "solve_triangle");
}

// A few hundred systems at a time, as doubles. The lower triangle of a row-major matrix is a column-major upper one.
void solve_systems(Gpu& gpu, const ops::SolveSystems& op) {
  if (op.x.empty()) return;
  constexpr int64_t kBytes = int64_t{64} << 20;
  const int64_t n = op.x.cols, most = std::clamp<int64_t>(kBytes / (n * n * 8), 1, op.x.rows);
  const auto doubles = [&](int64_t count) { return Matrix(gpu.memory(), DType::u8, 1, count * 8); };
  Matrix matrices = doubles(most * n * n), sides = doubles(most * n), places = doubles(2 * most),
         info(gpu.memory(), DType::i32, 1, most + 1);
  auto* matrix_data = static_cast<double*>(matrices.view().data);
  auto* side_data = static_cast<double*>(sides.view().data);
  auto** addresses = static_cast<double**>(places.view().data);
  auto* verdicts = info.row<int32_t>(0);
  for (int64_t first = 0; first < op.x.rows; first += most) {
    const int64_t count = std::min(most, op.x.rows - first);
    const MatrixView part = op.x.row_range(first, count);
    widen_systems(op.a.row_range(first, count), part, op.ridge, matrix_data, side_data, addresses, gpu.stream());
    const auto order = static_cast<int>(n), systems = static_cast<int>(count);
    check(cusolverDnDpotrfBatched(gpu.solver(), CUBLAS_FILL_MODE_UPPER, order, addresses, order, verdicts, systems),
          gpu.name(), "solve_systems");
    check(cusolverDnDpotrsBatched(gpu.solver(), CUBLAS_FILL_MODE_UPPER, order, 1, addresses, order, addresses + count,
                                  order, verdicts + most, systems),
          gpu.name(), "solve_systems");
    narrow_solutions(side_data, verdicts, part, gpu.stream());
  }
}

}  // namespace

void add_factor_ops(GpuOps& table) {
  table.add<factor>();
  table.add<solve_triangle>();
  table.add<solve_systems>();
}

}  // namespace gptq::cuda
