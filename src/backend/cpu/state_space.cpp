// State-space models. Mamba-2's recurrence is computed in chunks of tokens (Dao and Gu 2024): inside a chunk it is a
// matrix product with the causal weights of its tokens, between chunks it passes a state. A task takes some heads that
// share b and c through a sequence, chunk by chunk, and multiplies with the micro-kernels for f32. Mamba's scan has a
// decay for every element of the state and is no product: a task takes some channels through a sequence.
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "backend/cpu/products.h"

namespace gptq::cpu {
namespace {

constexpr int64_t kChunk = 64;       // tokens
constexpr int64_t kHeadsAtOnce = 8;  // of a task
constexpr double kForgotten = -80;   // a weight below exp() of it is zero, before it is denormal
constexpr int64_t kChannels = 64;    // of a task
constexpr int64_t kLane = 16;        // channels are computed in multiples of it

double softplus(double x) { return x > 20 ? x : std::log1p(std::exp(x)); }

// m in f32: itself, or a copy at `room`.
ConstMatrixView as_wide(const CpuBackend& cpu, ConstMatrixView m, float* room) {
  return m.dtype == DType::f32 ? m : wide_rows(cpu, m, room);
}

// Heads of one group, and rows [first, end) of a sequence.
struct DualTask {
  int64_t first, end, group, first_head, heads;
};

// One task. In a chunk of L tokens, with g = c b' [L, L], s the step sizes and d(t, u) the decay from token u to t,
//   y = [d(t, start) c | g d(t, u) s(u) + diag(skip)] [h; x]
//   h = d(end, start) h + b' (d(end, u) s(u) x)
class DualPass {
 public:
  DualPass(CpuBackend& cpu, const ops::StateSpaceDual& op, const DualTask& task)
      : cpu_(cpu), op_(op), task_(task), lease_(cpu.scratch.borrow(floats(), static_cast<int>(kPieces))) {
    const auto all = sizes();
    float** const pieces[kPieces] = {&states_,    &b_room_, &c_room_, &x_room_, &weighted_x_, &b_panels_, &c_panels_,
                                     &b_columns_, &scores_, &left_,   &right_,  &x_columns_,  &y_room_};
    for (size_t i = 0; i < kPieces; ++i) *pieces[i] = lease_.take(all[i]);
    std::fill_n(states_, all[0], 0.0F);
  }

  void run() {
    for (int64_t start = task_.first; start < task_.end; start += kChunk) {
      begin_chunk(start, std::min(kChunk, task_.end - start));
      for (int64_t i = 0; i < task_.heads; ++i) {
        const int64_t head = task_.first_head + i;
        float* const state = states_ + i * state_rows_ * state_stride_;
        weigh(head);
        const ConstMatrixView x = as_wide(cpu_, op_.x.block(start_, tokens_, head * width_, width_), x_room_);
        read_state(x, state, op_.y.block(start_, tokens_, head * width_, width_));
        if (start + kChunk < task_.end) update_state(x, state);
      }
    }
  }

 private:
  // b and c of the chunk, packed, and their products.
  void begin_chunk(int64_t start, int64_t tokens) {
    start_ = start;
    tokens_ = tokens;
    const ConstMatrixView b = as_wide(cpu_, op_.b.block(start, tokens, task_.group * elements_, elements_), b_room_);
    c_ = as_wide(cpu_, op_.c.block(start, tokens, task_.group * elements_, elements_), c_room_);
    const int64_t panels = pieces_of(tokens, rows_.cols);
    for (int64_t i = 0; i < panels; ++i) {
      const int64_t row = i * rows_.cols;
      pack_b(cpu_, rows_, b.row_range(row, std::min(rows_.cols, tokens - row)),
             reinterpret_cast<uint32_t*>(b_panels_) + row * elements_);
    }
    const APanels a = pack_a(cpu_, rows_, c_, reinterpret_cast<uint32_t*>(c_panels_));
    for (int64_t row = 0; row < tokens; row += rows_.rows) {
      rows_.multiply_across({.dwords = elements_,
                             .a = a.data + row / rows_.rows * a.panel_stride,
                             .row_stride = a.row_stride,
                             .step_stride = a.step_stride,
                             .b = reinterpret_cast<const uint32_t*>(b_panels_)},
                            panels, scores_ + row * score_stride_, score_stride_);
    }
    for (int64_t col = 0; col < elements_; col += columns_.cols) {
      pack_columns(cpu_, columns_, b.col_range(col, std::min(columns_.cols, elements_ - col)), tokens, columns_.cols,
                   reinterpret_cast<uint32_t*>(b_columns_) + col * tokens);
    }
  }

  // The left operand for a head; leaves the weights of the tokens in the next state, and its own.
  void weigh(int64_t head) {
    const float bias = op_.dt_bias.row<float>(0)[head], skip = op_.d.row<float>(0)[head];
    const double rate = -std::exp(static_cast<double>(op_.a_log.row<float>(0)[head]));
    double logs[kChunk], log = 0;
    int64_t live = 0;  // tokens before it are forgotten
    for (int64_t t = 0; t < tokens_; ++t) {
      float dt = 0;
      dt = *cpu_.as_f32(op_.dt.block(start_ + t, 1, head, 1), 0, &dt);
      const double step =
          std::clamp(softplus(static_cast<double>(dt) + bias), double{op_.shape.min_step}, double{op_.shape.max_step});
      log += rate * step;
      logs[t] = log;
      while (live < t && log - logs[live] < kForgotten) weights_[live++] = 0;
      cpu_.kernels.scale(weights_ + live, static_cast<float>(std::exp(rate * step)), weights_ + live, t - live);
      weights_[t] = static_cast<float>(step);
      float* row = left_ + t * left_stride_;
      decay_ = log < kForgotten ? 0 : static_cast<float>(std::exp(log));
      cpu_.kernels.scale(c_.row<float>(t), decay_, row, elements_);
      row += elements_;
      std::fill_n(row, live, 0.0F);
      cpu_.kernels.scale_by(scores_ + t * score_stride_ + live, weights_ + live, 1, row + live, t + 1 - live);
      row[t] += skip;
      std::fill_n(row + t + 1, end_of_panel(t) - t - 1, 0.0F);
    }
    for (int64_t t = tokens_; t < rounded_up(tokens_, rows_.rows); ++t)
      std::fill_n(left_ + t * left_stride_, left_stride_, 0.0F);
  }

  // Tokens that a panel of the left operand weighs: those up to its last row.
  int64_t end_of_panel(int64_t row) const { return std::min(tokens_, (row / rows_.rows + 1) * rows_.rows); }

  void read_state(ConstMatrixView x, const float* state, MatrixView y) {
    const int64_t dwords = elements_ + tokens_;
    const ConstMatrixView h(state, DType::f32, elements_, width_, state_stride_);
    for (int64_t col = 0; col < width_; col += rows_.cols) {
      auto* const panel = reinterpret_cast<uint32_t*>(right_);
      const int64_t cols = std::min(rows_.cols, width_ - col);
      pack_columns(cpu_, rows_, h.col_range(col, cols), elements_, rows_.cols, panel);
      pack_columns(cpu_, rows_, x.col_range(col, cols), tokens_, rows_.cols, panel + elements_ * rows_.cols);
      for (int64_t row = 0; row < tokens_; row += rows_.rows) {
        rows_.multiply({.dwords = dwords - tokens_ + end_of_panel(row),
                        .a = reinterpret_cast<const uint32_t*>(left_ + row * left_stride_),
                        .row_stride = left_stride_,
                        .step_stride = 1,
                        .b = panel},
                       y_room_ + row * y_stride_ + col, y_stride_, false);
      }
    }
    for (int64_t t = 0; t < tokens_; ++t) {
      float* const row = y_room_ + t * y_stride_;
      float* const to = cpu_.begin_row(y, t, row);
      if (to != row) std::copy_n(row, width_, to);
      cpu_.finish_row(to, y, t);
    }
  }

  void update_state(ConstMatrixView x, float* state) {
    for (int64_t t = 0; t < tokens_; ++t)
      cpu_.kernels.scale(x.row<float>(t), weights_[t], weighted_x_ + t * width_, width_);
    cpu_.kernels.scale(state, decay_, state, elements_ * state_stride_);
    const ConstMatrixView weighted(weighted_x_, DType::f32, tokens_, width_);
    for (int64_t col = 0; col < width_; col += columns_.cols) {
      auto* const panel = reinterpret_cast<uint32_t*>(x_columns_);
      const int64_t cols = std::min(columns_.cols, width_ - col);
      pack_columns(cpu_, columns_, weighted.col_range(col, cols), tokens_, columns_.cols, panel);
      const auto multiply = columns_.multiply_first(cols);
      for (int64_t row = 0; row < elements_; row += columns_.rows) {
        const int64_t of_panel = row % columns_.cols;
        multiply({.dwords = tokens_,
                  .a = reinterpret_cast<const uint32_t*>(b_columns_) + (row - of_panel) * tokens_ + of_panel,
                  .row_stride = 1,
                  .step_stride = columns_.cols,
                  .b = panel},
                 state + row * state_stride_ + col, state_stride_, true);
      }
    }
  }

  // Floats of the buffers, in their order.
  static constexpr size_t kPieces = 13;
  std::array<int64_t, kPieces> sizes() const {
    const int64_t chunk_rows = rounded_up(kChunk, rows_.rows), of_elements = kChunk * elements_;
    return {task_.heads * state_rows_ * state_stride_,
            of_elements,
            of_elements,
            kChunk * width_,
            kChunk * width_,
            score_stride_ * elements_,
            a_room(rows_, {nullptr, DType::f32, kChunk, elements_}),
            kChunk * rounded_up(elements_, columns_.cols),
            chunk_rows * score_stride_,
            chunk_rows * left_stride_,
            (elements_ + kChunk) * rows_.cols,
            kChunk * columns_.cols,
            chunk_rows * y_stride_};
  }
  int64_t floats() const {
    int64_t sum = 0;
    for (const int64_t size : sizes()) sum += size;
    return sum;
  }

  CpuBackend& cpu_;
  const ops::StateSpaceDual& op_;
  const DualTask task_;
  const ProductKernel &rows_ = cpu_.products.f32, &columns_ = cpu_.products.f32_columns;
  const int64_t elements_ = op_.shape.state, width_ = op_.shape.head_dim;
  const int64_t state_rows_ = rounded_up(elements_, columns_.cols), state_stride_ = rounded_up(width_, columns_.cols),
                score_stride_ = rounded_up(kChunk, rows_.cols), left_stride_ = rounded_up(elements_ + kChunk, 16) + 16,
                y_stride_ = rounded_up(width_, rows_.cols);
  ScratchPool::Lease lease_;
  float *states_ = nullptr, *b_room_ = nullptr, *c_room_ = nullptr, *x_room_ = nullptr, *weighted_x_ = nullptr;
  float *b_panels_ = nullptr, *c_panels_ = nullptr, *b_columns_ = nullptr;
  float *scores_ = nullptr, *left_ = nullptr, *right_ = nullptr, *x_columns_ = nullptr, *y_room_ = nullptr;
  // Of the chunk, and of its head.
  int64_t start_ = 0, tokens_ = 0;
  ConstMatrixView c_;
  float weights_[kChunk] = {}, decay_ = 1;
};

void state_space_dual(CpuBackend& cpu, const ops::StateSpaceDual& op) {
  if (op.x.empty()) return;
  const int64_t heads = op.shape.heads / op.shape.groups, sequences = static_cast<int64_t>(op.offsets.size()) - 1;
  // Fewer heads at a time repeat the products of b and c, more leave threads without work.
  const int64_t wanted = pieces_of(int64_t{2} * cpu.pool.size(), std::max<int64_t>(1, sequences * op.shape.groups));
  const int64_t at_once = std::clamp<int64_t>(heads / wanted, 1, kHeadsAtOnce);
  std::vector<DualTask> tasks;
  for (size_t s = 0; s + 1 < op.offsets.size(); ++s) {
    for (int64_t group = 0; group < op.shape.groups; ++group) {
      for (int64_t i = 0; i < heads; i += at_once)
        tasks.push_back({op.offsets[s], op.offsets[s + 1], group, group * heads + i, std::min(at_once, heads - i)});
    }
  }
  cpu.pool.for_each(static_cast<int64_t>(tasks.size()),
                    [&](int64_t i) { DualPass(cpu, op, tasks[static_cast<size_t>(i)]).run(); });
}

// Channels [channel, channel + count) of rows [first, end).
struct ScanTask {
  int64_t first, end, channel, count;
};

void scan(CpuBackend& cpu, const ops::SelectiveScan& op, const ScanTask& task) {
  const int64_t state = op.b.cols, count = task.count;
  ScratchPool::Lease lease = cpu.scratch.borrow((2 * state + 4) * kChannels + 2 * state, 8);
  float *const rates = lease.take(state * kChannels), *const states = lease.take(state * kChannels),
               *const steps = lease.take(kChannels), *const x = lease.take(kChannels),
               *const skip = lease.take(kChannels), *const y = lease.take(kChannels), *const b = lease.take(state),
               *const c = lease.take(state);
  std::fill_n(rates, state * kChannels, 0.0F);
  std::fill_n(states, state * kChannels, 0.0F);
  for (float* piece : {steps, x, skip}) std::fill_n(piece, kChannels, 0.0F);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t n = 0; n < state; ++n) rates[n * kChannels + i] = -std::exp(op.a_log.row<float>(task.channel + i)[n]);
    skip[i] = op.d.row<float>(0)[task.channel + i];
  }
  const auto fetch = [&](ConstMatrixView m, int64_t row, float* to) {
    const float* from = cpu.as_f32(m, row, to);
    if (from != to) std::copy_n(from, m.cols, to);
  };
  const int64_t width = rounded_up(count, kLane);
  for (int64_t row = task.first; row < task.end; ++row) {
    fetch(op.dt.col_range(task.channel, count), row, steps);
    fetch(op.x.col_range(task.channel, count), row, x);
    fetch(op.b, row, b);
    fetch(op.c, row, c);
    cpu.kernels.softplus(steps, width);
    cpu.kernels.scan({rates, states, kChannels, state}, {steps, x, skip, b, c}, y, width);
    const MatrixView to = op.y.col_range(task.channel, count);
    float* const result = cpu.begin_row(to, row, y);
    if (result != y) std::copy_n(y, count, result);
    cpu.finish_row(result, to, row);
  }
}

void selective_scan(CpuBackend& cpu, const ops::SelectiveScan& op) {
  if (op.x.empty()) return;
  std::vector<ScanTask> tasks;
  for (size_t s = 0; s + 1 < op.offsets.size(); ++s) {
    for (int64_t channel = 0; channel < op.x.cols; channel += kChannels)
      tasks.push_back({op.offsets[s], op.offsets[s + 1], channel, std::min(kChannels, op.x.cols - channel)});
  }
  cpu.pool.for_each(static_cast<int64_t>(tasks.size()),
                    [&](int64_t i) { scan(cpu, op, tasks[static_cast<size_t>(i)]); });
}

}  // namespace

void add_state_space_ops(CpuOps& table) {
  table.add<state_space_dual>();
  table.add<selective_scan>();
}

}  // namespace gptq::cpu
