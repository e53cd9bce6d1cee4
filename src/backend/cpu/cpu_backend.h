// The CPU backend: matrix products and everything else by kernels chosen for the processor, factorizations by
// single-threaded OpenBLAS on tiles, all spread over one thread pool. How sums are cut depends on shapes alone, so
// results are the same bits for any number of threads. Products of bf16 are taken as they are where the processor can;
// f16, and bf16 elsewhere, are widened to f32, panel by panel or row by row.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/product_kernels.h"
#include "base/parallel.h"
#include "tensor/memory_pool.h"

namespace gptq {

// Buffers of floats that tasks borrow. They are kept, so their pages stay mapped; each thread has its own, as threads
// that wait for each other with every task would show.
class ScratchPool {
 private:
  struct alignas(64) Slot {
    std::mutex mutex;
    std::vector<Matrix> free;  // of one row each
  };

 public:
  explicit ScratchPool(int threads) : slots_(static_cast<size_t>(threads)) {}

  class Lease {
   public:
    Lease(Slot& slot, Matrix buffer) : slot_(slot), buffer_(std::move(buffer)) {}
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    // The next `count` floats of the buffer, contents undefined, aligned to 64 bytes.
    float* take(int64_t count);

   private:
    Slot& slot_;
    Matrix buffer_;
    int64_t used_ = 0;
  };

  // A buffer of room for all that is then taken from it; `count` is the sum of the counts, `pieces` their number.
  Lease borrow(int64_t count, int pieces = 1);

 private:
  std::vector<Slot> slots_;  // by ThreadPool::thread_index()
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options);

  std::string name() const override { return "cpu"; }
  std::string description() const override;
  void* allocate(size_t bytes) override { return memory_.allocate(bytes); }
  void release(void* block, size_t bytes) noexcept override { memory_.release(block, bytes); }
  void wait() override {}
  // The heap's free pages too.
  void trim() noexcept override;
  int64_t scratch_bytes(const OpCall& call) const override;
  Memory& staging_memory() override { return host_; }
  MemoryUse memory_use() const override;
  // bf16 where the processor has dot products of it, else f32.
  DType compute_dtype(DType stored) const override {
    return stored == DType::bf16 && products_.multiply_bf16() ? DType::bf16 : DType::f32;
  }
  // Half of an addition's bandwidth is a cheap price for what many roundings would cost.
  DType residual_dtype(DType /*computed*/) const override { return DType::f32; }

  void gather_rows(ConstMatrixView table, std::span<const int32_t> ids, MatrixView y) override;
  void gather_columns(ConstMatrixView x, std::span<const int32_t> ids, MatrixView y) override;
  void convert(ConstMatrixView x, MatrixView y) override;
  void clear(MatrixView y) override;
  void add(ConstMatrixView x, float factor, MatrixView y) override;
  void rms_norm(ConstMatrixView x, ConstMatrixView weight, float eps, MatrixView y) override;
  void layer_norm(ConstMatrixView x, ConstMatrixView weight, ConstMatrixView bias, float eps, MatrixView y) override;
  void linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, MatrixView y) override;
  void gated_linear(ConstMatrixView x, const GatedWeights& weights, MatrixView y) override;
  void add_linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, float factor, MatrixView y) override;
  // Tile registers wait for memory so much that it pays.
  bool fuses_linears(DType dtype) const override { return takes_tiles(dtype); }
  // They are soon done with 2048 tokens, of which handing them out to threads takes a large part then.
  int64_t batch_tokens(DType computed) const override { return takes_tiles(computed) ? 8192 : 2048; }
  void rope(ConstMatrixView cos, ConstMatrixView sin, SequenceOffsets offsets, RotaryOrder order, int64_t head_dim,
            MatrixView x) override;
  void attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, SequenceOffsets offsets,
                 const AttentionShape& shape, MatrixView y) override;
  void gate(ConstMatrixView gate, ConstMatrixView up, Activation activation, MatrixView y) override;
  void cap(Cap kind, float bound, MatrixView x) override;
  void add_rows(ConstMatrixView x, std::span<const int32_t> ids, std::span<const float> weights, MatrixView y) override;
  void add_gram(ConstMatrixView x, MatrixView h, MatrixView dropped) override;
  void add_cross_gram(ConstMatrixView x, ConstMatrixView original, MatrixView c) override;
  void mirror(MatrixView h) override;
  void permute_symmetric(ConstMatrixView h, std::span<const int32_t> order, float damp, MatrixView y) override;
  void solve_triangle(ConstMatrixView factor, bool transposed, MatrixView x) override;
  void solve_systems(ConstMatrixView a, float ridge, MatrixView x) override;
  void group_products(ConstMatrixView x, ConstMatrixView y, int64_t group_size, MatrixView products) override;
  void add_row_norms(ConstMatrixView x, MatrixView norms) override;
  void add_product_norms(ConstMatrixView w, ConstMatrixView factor, MatrixView norms) override;
  bool factor(MatrixView h) override;
  void find_grid(ConstMatrixView w, ConstMatrixView importance, int64_t group_size, const GridSearch& search,
                 MatrixView scales, MatrixView zeros) override;
  void quantize_columns(ConstMatrixView w, ConstMatrixView feedback, ConstMatrixView factor,
                        std::span<const int32_t> groups, const Grid& grid, MatrixView codes, MatrixView errors,
                        MatrixView loss) override;
  void round_columns(ConstMatrixView w, std::span<const int32_t> groups, const Grid& grid, MatrixView codes) override;
  void dequantize(ConstMatrixView codes, std::span<const int32_t> groups, const Grid& grid, MatrixView w) override;
  void pack(ConstMatrixView codes, int bits, MatrixView words) override;
  void token_losses(ConstMatrixView logits, std::span<const int32_t> targets, MatrixView losses) override;
  void compare_logits(ConstMatrixView p, ConstMatrixView q, MatrixView divergence, MatrixView same_top) override;

 private:
  void copy_in(MatrixView to, const void* from) override;
  void copy_out(void* to, ConstMatrixView from) override;
  // Row `row` of a float matrix as f32: the row itself where it is f32, else `scratch` (m.cols floats), filled.
  const float* as_f32(ConstMatrixView m, int64_t row, float* scratch) const;
  // All of a small float matrix as f32, row after row.
  std::vector<float> widened(ConstMatrixView m) const;
  // Where to compute row `row` of a float matrix: the row itself where it is f32, else `scratch`, which finish_row()
  // then rounds to the row. update_row() does the same for a row that is updated, with its present values.
  float* begin_row(const MatrixView& m, int64_t row, float* scratch) const;
  float* update_row(MatrixView m, int64_t row, float* scratch) const;
  void finish_row(const float* computed, const MatrixView& m, int64_t row) const;
  // Rounds n floats to a 16-bit dtype, which they are then f32 values of.
  void round_row(float* row, DType dtype, int64_t n) const;
  // Calls body(row, scratch) for all rows on all threads, `scratch` being pieces * width floats of the thread's own.
  template <typename Body>
  void for_rows(int64_t rows, int64_t width, int pieces, const Body& body);
  // The first top element of x and the logarithm of sum exp(x).
  struct Softmax {
    float top = 0, log_sum = 0;
  };
  Softmax softmax_of(const float* x, int64_t n) const;
  // Lower triangle of h -= x' x.   x [rows, n] f32, h [n, n] f32
  void subtract_gram(ConstMatrixView x, MatrixView h);

  // Whether products of that dtype are taken by tile registers.
  bool takes_tiles(DType dtype) const { return dtype == DType::bf16 && products_.bf16.tile_layout; }
  // The kernel for products of a and b, the dtype of what it multiplies, and whether that needs no conversion.
  const ProductKernel& product_kernel(ConstMatrixView a, ConstMatrixView b) const;
  const ProductKernel& columns_kernel(ConstMatrixView a, ConstMatrixView b) const;
  static DType dtype_of(const ProductKernel& kernel) { return kernel.k_per_dword == 2 ? DType::bf16 : DType::f32; }
  static bool is_packable(const ProductKernel& kernel, DType dtype) { return dtype == dtype_of(kernel); }
  bool is_finite(ConstMatrixView x, int64_t row) const;
  // x in f32, at `wide`.
  ConstMatrixView wide_rows(ConstMatrixView x, float* wide) const;
  // A row of x in the kernel's dtype, filled up with zeros.
  void pack_row(const ProductKernel& kernel, ConstMatrixView x, int64_t row, int64_t dwords, uint32_t* to) const;
  // One right panel of w's rows, at most kernel.cols; or of x's columns, at most `width`, in either operand's width.
  void pack_b(const ProductKernel& kernel, ConstMatrixView w, uint32_t* panel);
  // Panels of neighbouring rows of w, one behind the other, on all threads.
  void pack_weight(const ProductKernel& kernel, ConstMatrixView w, uint32_t* packed);
  void pack_columns(const ProductKernel& kernel, ConstMatrixView x, int64_t dwords, int64_t width,
                    uint32_t* panel) const;
  // Left panels of x's rows: where they lie if that will do, else in `room`, which holds a_room() words.
  struct APanels {
    const uint32_t* data;
    int64_t row_stride, step_stride, panel_stride;
  };
  APanels pack_a(const ProductKernel& kernel, ConstMatrixView x, uint32_t* room) const;
  static int64_t a_room(const ProductKernel& kernel, ConstMatrixView x);
  // y = left right' + bias, of right panels one after the other.
  void multiply_panels(const ProductKernel& kernel, int64_t dwords, const APanels& a, const uint32_t* b,
                       const float* bias, MatrixView y);
  void apply_epilogue(const float* c, int64_t c_stride, const float* bias, MatrixView y) const;
  int64_t gram_scratch_dwords(const OpCall& call) const;
  GateKernels<uint16_t>::Gate gate_bf16(Activation activation) const;
  // x w' + bias of one side or two with equally many columns: packs the weights and cuts the result into tasks, each of
  // which calls body(first row, rows, first column, columns, multiply), with multiply(side, first column, to).
  struct Side {
    ConstMatrixView w, bias;
  };
  template <typename Body>
  void for_products(const ProductKernel& kernel, ConstMatrixView x, std::span<const Side> sides, const Body& body);
  // The same in bf16: calls finish(row, first column, columns, values of each side), a few columns at a time, which are
  // in the cache then.
  template <typename Finish>
  void multiply_in_cache(ConstMatrixView x, std::span<const Side> sides, const Finish& finish);
  struct TileShape {
    int64_t rows, cols;
  };
  TileShape tile_shape(int64_t m, int64_t n, const ProductKernel& kernel) const;
  // c += left' right; where `only_lower`, only what tiles of the lower triangle hold. Of one and the same matrix it
  // looks at the elements: if not all are finite, c stays as it is, and the answer is false.
  // left, right [tokens, n] of a dtype that their kernel packs, c [n, n] f32
  bool add_column_products(ConstMatrixView left, ConstMatrixView right, bool only_lower, MatrixView c);
  bool pack_columns_for_tiles(const ProductKernel& kernel, ConstMatrixView x, uint32_t* left, uint32_t* right);
  bool add_column_products_in_tiles(ConstMatrixView left, ConstMatrixView right, bool only_lower, MatrixView c);

  struct PackedKeys;
  struct AttentionTask;
  PackedKeys pack_keys(const ProductKernel& kernel, ConstMatrixView k, ConstMatrixView v, SequenceOffsets offsets,
                       const AttentionShape& shape, ScratchPool::Lease& room);
  void attend(const ProductKernel& kernel, ConstMatrixView q, const PackedKeys& packed, const AttentionShape& shape,
              const AttentionTask& task, MatrixView y);

  Memory& host_;
  LimitedMemory limited_;
  MemoryPool memory_{limited_};
  const Kernels& kernels_;
  const ProductKernels& products_ = *kernels_.products;
  ThreadPool pool_;
  ScratchPool scratch_{pool_.size()};
};

template <typename Body>
void CpuBackend::for_rows(int64_t rows, int64_t width, int pieces, const Body& body) {
  // Elements per task: enough to outweigh handing it out.
  constexpr int64_t kGrain = 1 << 15;
  if (rows == 0 || width == 0) return;
  const int64_t rows_per_task = std::max<int64_t>(1, kGrain / width);
  pool_.for_each((rows + rows_per_task - 1) / rows_per_task, [&](int64_t task) {
    ScratchPool::Lease lease = scratch_.borrow(pieces * width);
    float* scratch = lease.take(pieces * width);
    const int64_t end = std::min(rows, (task + 1) * rows_per_task);
    for (int64_t row = task * rows_per_task; row < end; ++row) body(row, scratch);
  });
}

}  // namespace gptq
