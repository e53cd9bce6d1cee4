// A block's weights as steps, and how to run them. A step is the linears that read the same input:
// q,k,v | o | gate,up | down. One step has one Hessian.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "io/checkpoint.h"
#include "model/architecture.h"

namespace gptq {

struct Linear {
  std::string name;  // module path: "model.layers.0.self_attn.q_proj"
  Matrix weight;     // [out_features, in_features], compute dtype
  Matrix bias;       // [1, out_features] or empty
};

struct Step {
  std::vector<Linear> linears;
};

struct Block {
  int64_t index = 0;
  std::vector<Step> steps;  // q,k,v | o | gate,up | down
  Matrix attention_norm, mlp_norm;
};

// The linears of one step by name and size, known without reading weights.
struct LinearSpec {
  std::string name;
  int64_t out_features = 0, in_features = 0;
  bool bias = false;
};
std::vector<std::vector<LinearSpec>> step_specs(const ModelConfig& config, int64_t block);

// Several sequences on their way through the blocks.
struct Batch {
  std::vector<int64_t> offsets;  // sequence s is rows [offsets[s], offsets[s + 1])
  Matrix residual;               // [tokens, hidden] between blocks
  Matrix input;                  // [tokens, in_features] of the current step, or empty
  int64_t tokens() const { return offsets.empty() ? 0 : offsets.back(); }
};

// Gives the weight [out, in] of a quantized linear in the given dtype, on the backend, dequantized; an empty matrix for
// a linear whose plain weight is in the checkpoint.
using WeightReader = std::function<Matrix(const LinearSpec& spec, DType dtype)>;

// A checkpoint opened as a network on one backend. Weights are read block by block, on demand.
class Model {
 public:
  // Validates that every tensor of every block exists with the shape that config.json implies (names of quantized
  // linears excepted when `reader` is given). Without a reader, plain float weights are read from the checkpoint.
  // Tensors that config.json does not imply are ignored, as transformers does: a head beside tied embeddings, a bias
  // that attention_bias denies.
  Model(const Checkpoint& checkpoint, Backend& backend, DType dtype, WeightReader reader = nullptr);

  const ModelConfig& config() const { return config_; }
  DType dtype() const { return dtype_; }

  // Reads one block. Throws InputError where a weight holds NaN or infinity, naming the tensor and how many.
  Block load_block(int64_t index) const;
  // Looks the tokens of all sequences up. Throws InputError for an id outside the vocabulary. Where rope depends on the
  // length, the sequences of one batch must have one length.
  Batch embed(std::span<const std::vector<int32_t>> sequences);

  // The sweep: applies the previous step's linears (none before step 0) and the glue up to step `step`; afterwards
  // batch.input is that step's input, which is returned.
  ConstMatrixView advance(const Block& block, int64_t step, Batch& batch);
  // Applies the last step and adds it to the residual; batch.input is empty afterwards.
  void finish(const Block& block, Batch& batch);
  // All steps: the block's whole forward pass.
  void forward(const Block& block, Batch& batch);

  // Final norm and output head of rows [first, first + count) of the residual: logits [count, vocabulary] f32.
  Matrix logits(const Batch& batch, int64_t first, int64_t count);

 private:
  struct RopeMatrices {
    Matrix cos, sin;  // [positions, rotary_dim / 2] f32
  };

  void check_tensors() const;
  Matrix upload(const StoredTensor& tensor) const;  // in the stored dtype, checked for NaN and infinity
  Matrix read(const std::string& name, const std::vector<int64_t>& shape) const;  // in dtype_
  Linear read_linear(const LinearSpec& spec) const;
  Matrix apply(const Linear& linear, ConstMatrixView x) const;  // y = x w' + bias
  const RopeMatrices& rope_for(const Batch& batch);
  const Matrix& embedding();
  const Matrix& head();

  const Checkpoint& checkpoint_;
  Backend& backend_;
  DType dtype_;
  WeightReader reader_;
  ModelConfig config_;
  Matrix embedding_, final_norm_, head_;  // embedding and head stay in the checkpoint's dtype; head_ is empty when tied
  RopeMatrices rope_;  // of the last batch's length, or of the longest so far where the length does not matter
};

// How many elements of a float tensor are NaN or infinite.
int64_t count_nonfinite(const StoredTensor& tensor);

}  // namespace gptq
