// Measures of logits: a block per row. Limited by memory bandwidth.
#include <cstdint>

#include "backend/cuda/gpu.h"
#include "backend/cuda/rows.cuh"
#include "ops/losses.h"

namespace gptq::cuda {
namespace {

// The maximum of a row, and log(sum(exp(x))), for all threads.
struct Softmax {
  float top, log_sum;
};
__device__ Softmax softmax_of(const AnyRows& x, int64_t r, int64_t n) {
  float top = -INFINITY;
  for (int64_t j = threadIdx.x; j < n; j += kThreads) top = fmaxf(top, x.get(r, j));
  top = over_block(top, Maximum());
  float sum = 0;
  for (int64_t j = threadIdx.x; j < n; j += kThreads) sum += expf(x.get(r, j) - top);
  return {top, top + logf(over_block(sum, Sum()))};
}

// Places are compared as floats, which hold them exactly below 2^24: no vocabulary is larger.
__device__ float first_place(const AnyRows& x, int64_t r, int64_t n, float value) {
  float place = INFINITY;
  for (int64_t j = n - 1 - threadIdx.x; j >= 0; j -= kThreads) {
    if (x.get(r, j) == value) place = static_cast<float>(j);
  }
  return -over_block(-place, Maximum());
}

struct TokenLosses {
  AnyRows logits;
  const int32_t* targets;
  Rows<float> losses;
  int64_t n;
  __device__ void operator()(int64_t r) const {
    const Softmax softmax = softmax_of(logits, r, n);
    if (threadIdx.x == 0) *losses.row(r) = softmax.log_sum - logits.get(r, targets[r]);
  }
};

struct CompareLogits {
  AnyRows p, q;
  Rows<float> divergence, same_top;
  int64_t n;
  __device__ void operator()(int64_t r) const {
    const Softmax of_p = softmax_of(p, r, n), of_q = softmax_of(q, r, n);
    float sum = 0;
    for (int64_t j = threadIdx.x; j < n; j += kThreads) {
      const float log_p = p.get(r, j) - of_p.log_sum;
      sum += expf(log_p) * (log_p - (q.get(r, j) - of_q.log_sum));
    }
    sum = over_block(sum, Sum());
    const float top_p = first_place(p, r, n, of_p.top), top_q = first_place(q, r, n, of_q.top);
    if (threadIdx.x == 0) {
      *divergence.row(r) = sum;
      *same_top.row(r) = top_p == top_q ? 1.0F : 0.0F;
    }
  }
};

void token_losses(Gpu& gpu, const ops::TokenLosses& op) {
  const Matrix targets = gpu.on_device(op.targets);
  launch_rows(op.logits.rows, gpu.stream(),
              TokenLosses{any_rows(op.logits), targets.row<int32_t>(0), rows_of<float>(op.losses), op.logits.cols});
}

void compare_logits(Gpu& gpu, const ops::CompareLogits& op) {
  launch_rows(op.p.rows, gpu.stream(),
              CompareLogits{any_rows(op.p), any_rows(op.q), rows_of<float>(op.divergence), rows_of<float>(op.same_top),
                            op.p.cols});
}

}  // namespace

void add_loss_ops(GpuOps& table) {
  table.add<token_losses>();
  table.add<compare_logits>();
}

}  // namespace gptq::cuda
