// The CUDA kernels, as functions that queue them on a stream. They neither allocate, synchronize nor fail: a launch
// that CUDA refuses is found by the caller's cudaGetLastError(). Matrices lie in device memory, in the layouts, dtypes
// and strides of ops.h, with no alignment beyond their elements'; arrays beside them too. Sizes of zero queue nothing.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "backend/ops.h"

namespace gptq::cuda {

// Whether the current device can run these kernels: cudaErrorNoKernelImageForDevice where none was built for it.
cudaError_t probe();

// rows.cu: ops that work row by row or element by element.
void copy(ConstMatrixView x, MatrixView y, cudaStream_t stream);  // y = x, both of one dtype, any
void convert(ConstMatrixView x, MatrixView y, cudaStream_t stream);
void add(ConstMatrixView x, float factor, MatrixView y, cudaStream_t stream);
void add_bias(ConstMatrixView bias, MatrixView y, cudaStream_t stream);  // y += bias, to every row
void gather_rows(ConstMatrixView table, const int32_t* ids, MatrixView y, cudaStream_t stream);
void gather_columns(ConstMatrixView x, const int32_t* ids, MatrixView y, cudaStream_t stream);
void add_rows(ConstMatrixView x, const int32_t* ids, const float* weights, MatrixView y, cudaStream_t stream);
// offsets: `sequences` + 1 of them.
void rope(ConstMatrixView cos, ConstMatrixView sin, const int64_t* offsets, int64_t sequences, RotaryOrder order,
          int64_t head_dim, MatrixView x, cudaStream_t stream);
void gate(ConstMatrixView gate, ConstMatrixView up, Activation activation, MatrixView y, cudaStream_t stream);
void cap(Cap kind, float bound, MatrixView x, cudaStream_t stream);
// products[r, g] = sum x_rk y_rk over the columns of group g.
void group_products(ConstMatrixView x, ConstMatrixView y, int64_t group_size, MatrixView products, cudaStream_t stream);
void add_row_norms(ConstMatrixView x, MatrixView norms, cudaStream_t stream);
void token_losses(ConstMatrixView logits, const int32_t* targets, MatrixView losses, cudaStream_t stream);
void compare_logits(ConstMatrixView p, ConstMatrixView q, MatrixView divergence, MatrixView same_top,
                    cudaStream_t stream);

// norms.cu
void rms_norm(ConstMatrixView x, ConstMatrixView weight, float eps, MatrixView y, cudaStream_t stream);
void layer_norm(ConstMatrixView x, ConstMatrixView weight, ConstMatrixView bias, float eps, MatrixView y,
                cudaStream_t stream);

// symmetric.cu: what surrounds the products of Hessians.
// y = x with rows that hold NaN or infinity replaced by zeros, in y's dtype; dropped[0, 0] += their number.
void keep_finite_rows(ConstMatrixView x, MatrixView y, MatrixView dropped, cudaStream_t stream);
// y = x and difference = original - x, with rows that hold NaN or infinity in either replaced by zeros. All of x's
// dtype.
void keep_finite_differences(ConstMatrixView x, ConstMatrixView original, MatrixView y, MatrixView difference,
                             cudaStream_t stream);
void mirror(MatrixView h, cudaStream_t stream);
void permute_symmetric(ConstMatrixView h, const int32_t* order, float damp, MatrixView y, cudaStream_t stream);
// Reverses the order of rows and of columns, in place.   h [n, n] f32
void reverse(MatrixView h, cudaStream_t stream);
// After a Cholesky factorization: zeros above the diagonal, and ok[0] = 1 where each element of the diagonal is
// positive and finite, else 0.   h [n, n] f32
void finish_factor(MatrixView h, int32_t* ok, cudaStream_t stream);
// y = x on and below the diagonal, 0 above.   x, y [n, n] f32
void copy_lower(ConstMatrixView x, MatrixView y, cudaStream_t stream);

// systems.cu
// For each row: the doubles of A_r + ridge mean(diag A_r) I, dense, and of x_r; addresses[r], addresses[rows + r]:
// where they lie.   a [rows, n * n] f32, x [rows, n] f32
void widen_systems(ConstMatrixView a, ConstMatrixView x, float ridge, double* matrices, double* sides,
                   double** addresses, cudaStream_t stream);
// x = the solutions; zeros in rows whose info is not 0 or whose solution is not finite.
void narrow_solutions(const double* sides, const int32_t* info, MatrixView x, cudaStream_t stream);

// attention.cu
// longest: tokens of the longest sequence. q, k, v, y have one dtype.
void attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, const int64_t* offsets, int64_t sequences,
               int64_t longest, const AttentionShape& shape, MatrixView y, cudaStream_t stream);

// grids.cu
void find_grid(ConstMatrixView w, ConstMatrixView importance, int64_t group_size, const GridSearch& search,
               MatrixView scales, MatrixView zeros, cudaStream_t stream);
// The grid column of each of at most 128 columns, small enough for a kernel's parameters.
struct ColumnGroups {
  int32_t of[128];
};
void quantize_columns(ConstMatrixView w, ConstMatrixView feedback, ConstMatrixView factor, const ColumnGroups& groups,
                      const Grid& grid, MatrixView codes, MatrixView errors, MatrixView loss, cudaStream_t stream);
void round_columns(ConstMatrixView w, const int32_t* groups, const Grid& grid, MatrixView codes, cudaStream_t stream);
void dequantize(ConstMatrixView codes, const int32_t* groups, const Grid& grid, MatrixView w, cudaStream_t stream);
void pack(ConstMatrixView codes, int bits, MatrixView words, cudaStream_t stream);

}  // namespace gptq::cuda
