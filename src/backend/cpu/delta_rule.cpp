// The gated delta rule in chunks (Yang et al. 2024, arXiv 2412.06464, section 3.3), so that nearly all of it is
// products of small matrices. A task is one head of one sequence, which passes its chunks in order. With c_i the sum of
// log_decay up to token i of a chunk, and s the state before it:
//   (1 + a) u = beta (v - exp(c) k s),  a_ij = beta_i exp(c_i - c_j) k_i k_j  for j < i
//   y = exp(c) q s + p u,  p_ij = exp(c_i - c_j) q_i k_j  for j <= i
//   s becomes exp(c_last) s + sum_j exp(c_last - c_j) k_j u_j'
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <cblas.h>

#include "backend/cpu/blas.h"
#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {
namespace {

constexpr int64_t kChunk = 64;

// A head of a sequence.
struct DeltaTask {
  int64_t first, tokens, head;
};

// Floats of a task, in the order of DeltaChunks' members.
int64_t room_of(int64_t key_dim, int64_t value_dim) {
  return 2 * kChunk * (key_dim + kChunk + value_dim) + kChunk * (value_dim + kChunk) + key_dim * value_dim;
}

// exp(x) for x <= 0, without results so small that arithmetic with them is slow.
float decay_of(double x) { return x < -80 ? 0.0F : std::exp(static_cast<float>(x)); }

// y = factor_x x + factor_y y, row after row of matrices without gaps.
void multiply(CBLAS_TRANSPOSE x_is, CBLAS_TRANSPOSE w_is, int64_t rows, int64_t cols, int64_t inner, const float* x,
              int64_t x_stride, const float* w, int64_t w_stride, float factor, float* y, int64_t y_stride) {
  cblas_sgemm(CblasRowMajor, x_is, w_is, static_cast<int>(rows), static_cast<int>(cols), static_cast<int>(inner), 1, x,
              static_cast<int>(x_stride), w, static_cast<int>(w_stride), factor, y, static_cast<int>(y_stride));
}

class DeltaChunks {
 public:
  DeltaChunks(const CpuBackend& cpu, const ops::GatedDeltaRule& op, const DeltaTask& task, ScratchPool::Lease& room)
      : cpu_(cpu),
        op_(op),
        task_(task),
        keys_(op.shape.key_dim),
        values_(op.shape.value_dim),
        keys_queries_(room.take(2 * kChunk * keys_)),
        scores_(room.take(2 * kChunk * kChunk)),
        reads_(room.take(2 * kChunk * values_)),
        updates_(room.take(kChunk * values_)),
        decays_(room.take(kChunk * kChunk)),
        state_(room.take(keys_ * values_)) {
    std::fill_n(state_, keys_ * values_, 0.0F);
  }

  void run() {
    const BlasCall call;
    for (int64_t done = 0; done < task_.tokens; done += kChunk)
      pass(task_.first + done, std::min(kChunk, task_.tokens - done));
  }

 private:
  void pass(int64_t first, int64_t n) {
    load(first, n);
    multiply(CblasNoTrans, CblasTrans, 2 * n, n, keys_, keys_queries_, keys_, keys_queries_, keys_, 0, scores_, kChunk);
    multiply(CblasNoTrans, CblasNoTrans, 2 * n, values_, keys_, keys_queries_, keys_, state_, values_, 0, reads_,
             values_);
    apply_decays(first, n);
    cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasUnit, static_cast<int>(n),
                static_cast<int>(values_), 1, scores_, static_cast<int>(kChunk), updates_, static_cast<int>(values_));
    float* const results = reads_ + n * values_;
    multiply(CblasNoTrans, CblasNoTrans, n, values_, n, scores_ + n * kChunk, kChunk, updates_, values_, 1, results,
             values_);
    const MatrixView y = op_.y.block(first, n, task_.head * values_, values_);
    for (int64_t i = 0; i < n; ++i) {
      if (y.dtype == DType::f32)
        std::memcpy(y.row<float>(i), results + i * values_, static_cast<size_t>(values_) * sizeof(float));
      else
        cpu_.finish_row(results + i * values_, y, i);
    }
    const float* const last = decays_ + (n - 1) * kChunk;
    for (int64_t i = 0; i < n; ++i)
      cpu_.kernels.scale(keys_queries_ + i * keys_, last[i], keys_queries_ + i * keys_, keys_);
    multiply(CblasTrans, CblasNoTrans, keys_, values_, n, keys_queries_, keys_, updates_, values_,
             decay_of(sums_[n - 1]), state_, values_);
  }

  // Keys and below them queries; values as the first updates; the decays from each token to each later one.
  void load(int64_t first, int64_t n) {
    const int64_t key_column = task_.head / (op_.shape.value_heads / op_.shape.key_heads) * keys_;
    copy(op_.k.block(first, n, key_column, keys_), keys_queries_);
    copy(op_.q.block(first, n, key_column, keys_), keys_queries_ + n * keys_);
    copy(op_.v.block(first, n, task_.head * values_, values_), updates_);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      sums_[i] = sum += op_.log_decay.row<float>(first + i)[task_.head];
      for (int64_t j = 0; j <= i; ++j) decays_[i * kChunk + j] = decay_of(sums_[i] - sums_[j]);
    }
  }

  void copy(ConstMatrixView from, float* to) const {
    for (int64_t i = 0; i < from.rows; ++i) {
      const float* row = cpu_.as_f32(from, i, to + i * from.cols);
      if (row != to + i * from.cols)
        std::memcpy(to + i * from.cols, row, static_cast<size_t>(from.cols) * sizeof(float));
    }
  }

  // From products of keys and queries with keys and with the state to a, p, the right side of the system, and what the
  // state before the chunk adds to y.
  void apply_decays(int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const float beta = op_.beta.row<float>(first + i)[task_.head], decay = decay_of(sums_[i]);
      float *system = scores_ + i * kChunk, *weights = scores_ + (n + i) * kChunk;
      const float* decays = decays_ + i * kChunk;
      for (int64_t j = 0; j < i; ++j) system[j] *= beta * decays[j];
      for (int64_t j = 0; j <= i; ++j) weights[j] *= decays[j];
      std::fill(weights + i + 1, weights + n, 0.0F);
      float* const update = updates_ + i * values_;
      cpu_.kernels.add(reads_ + i * values_, -decay, update, values_);
      cpu_.kernels.scale(update, beta, update, values_);
      float* const read = reads_ + (n + i) * values_;
      cpu_.kernels.scale(read, decay, read, values_);
    }
  }

  const CpuBackend& cpu_;
  const ops::GatedDeltaRule& op_;
  const DeltaTask task_;
  const int64_t keys_, values_;  // elements of a head
  float *const keys_queries_, *const scores_, *const reads_, *const updates_, *const decays_, *const state_;
  double sums_[kChunk];
};

void gated_delta_rule(CpuBackend& cpu, const ops::GatedDeltaRule& op) {
  if (op.y.empty()) return;
  std::vector<DeltaTask> tasks;
  for (size_t s = 0; s + 1 < op.offsets.size(); ++s) {
    for (int64_t head = 0; head < op.shape.value_heads; ++head)
      tasks.push_back({op.offsets[s], op.offsets[s + 1] - op.offsets[s], head});
  }
  // The longest tasks first, so that threads end together.
  std::stable_sort(tasks.begin(), tasks.end(), [](const auto& a, const auto& b) { return a.tokens > b.tokens; });
  cpu.pool.for_each(static_cast<int64_t>(tasks.size()), [&](int64_t index) {
    ScratchPool::Lease room = cpu.scratch.borrow(room_of(op.shape.key_dim, op.shape.value_dim), 6);
    DeltaChunks(cpu, op, tasks[static_cast<size_t>(index)], room).run();
  });
}

int64_t delta_scratch(const CpuBackend& cpu, const OpCall& call) {
  return cpu.pool.size() * room_of(call.sizes[2], call.sizes[3]) * static_cast<int64_t>(sizeof(float));
}

void log_decay(CpuBackend& cpu, const ops::LogDecay& op) {
  const std::vector<float> biases = cpu.widened(op.bias), logs = cpu.widened(op.log_rate);
  std::vector<float> rates(logs.size());
  std::transform(logs.begin(), logs.end(), rates.begin(), [](float log) { return std::exp(log); });
  cpu.for_rows(op.y.rows, op.y.cols, 1, [&](int64_t row, float* scratch) {
    const float* x = cpu.as_f32(op.x, row, scratch);
    float* y = op.y.row<float>(row);
    for (int64_t i = 0; i < op.y.cols; ++i) {
      const float sum = x[i] + biases[i];
      y[i] = -rates[i] * (std::max(sum, 0.0F) + std::log1p(std::exp(-std::abs(sum))));
    }
  });
}

}  // namespace

void add_delta_rule_ops(CpuOps& table) {
  table.add<log_decay>();
  table.add<gated_delta_rule>(&delta_scratch);
}

}  // namespace gptq::cpu
