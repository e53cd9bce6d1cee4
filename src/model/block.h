// A block's weights: on a backend, in steps of linears that read one input; or staged in host memory.
// One step has one Hessian.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "model/specs.h"

namespace gptq {

// A weight as its codes, on a device.
struct PackedMatrices {
  Matrix words, scales, zeros;  // as PackedWeight has them
  int bits = 0;                 // 0: there is none
  int64_t group_size = 0;
  std::vector<int32_t> order;  // input order[k] is the k-th of them; empty: as they are

  PackedWeight view() const { return {words, scales, zeros, bits, group_size}; }
};

// The elements of a weight, or its codes.
struct Weight {
  Matrix dense;  // [out_features, in_features]
  PackedMatrices packed;
  Weight(Matrix dense) : dense(std::move(dense)) {}             // NOLINT: either is a weight
  Weight(PackedMatrices packed) : packed(std::move(packed)) {}  // NOLINT
};

struct Linear {
  std::string name;            // module path: "model.layers.0.self_attn.q_proj"
  Matrix weight;               // [out_features, in_features], compute dtype
  Matrix bias;                 // [1, out_features] or empty
  PackedMatrices packed = {};  // in the place of the weight, for texts
  bool is_for_texts = false;   // few rows at a time: ops::NarrowLinear

  int64_t out_features() const { return packed.bits > 0 ? packed.words.cols() : weight.rows(); }
};

struct Step {
  std::vector<Linear> linears;
};

// What passes a model: batches of whole sequences, or a text, token by token.
enum class ModelUse : uint8_t { batches, texts };

struct Affine {
  Matrix weight, bias;  // f32; the bias may be empty
};
using Parts = std::array<Affine, kParts>;

struct Block {
  int64_t index = 0;
  Backend* backend = nullptr;    // holds it and computes
  std::vector<StepKind> kinds;   // one per step
  std::vector<int64_t> experts;  // one per step; -1: none
  std::vector<Step> steps;       // linears of a step that is not loaded have no weights
  Parts parts;
  Matrix slopes;  // ALiBi's, [1, heads] f32, or empty
};

const Affine& part_of(const Block& block, Part part);
// The linears of the only step of a kind.
const std::vector<Linear>& linears_of(const Block& block, StepKind kind);
// The step after the mixer's: the first of the MLP or of the experts, or the number of steps if the block has neither.
int64_t first_of_mlp(const Block& block);
// y = x w' + bias
void multiply(Backend& backend, const Linear& linear, ConstMatrixView x, MatrixView y);
// The same in x's dtype, in a matrix with room for at least `room` rows.
Matrix apply(Backend& backend, const Linear& linear, ConstMatrixView x, int64_t room = 0);

// Whether the device computes more than the product in one op with this linear, for models computed in `dtype`.
inline bool is_fused(const Backend& backend, const Linear& linear, DType dtype) {
  return !linear.is_for_texts && backend.fuses_linears(dtype);
}

// Makes a linear's weight on a backend from data in host memory.
using PlaceWeight = std::function<Weight(Backend& backend, DType dtype)>;
// Reads a quantized linear into host memory; returns an empty function if the checkpoint has its plain weight.
// Thread-safe.
using WeightReader = std::function<PlaceWeight(const LinearSpec& spec)>;

// A block in host memory, ready to be loaded to a device.
struct StagedBlock {
  struct StagedLinear {
    std::string name;
    PlaceWeight weight;
    Matrix bias;  // in the checkpoint's dtype, or empty
  };
  int64_t index = 0;
  Parts parts;  // f32
  std::vector<StepKind> kinds;
  std::vector<int64_t> experts;
  std::vector<std::vector<StagedLinear>> steps;
};

// Uploads a host matrix to a backend, converted to `dtype`; and a part, in f32.
Matrix place_matrix(ConstMatrixView host, Backend& backend, DType dtype);
Affine place_part(const Affine& part, Backend& backend);

}  // namespace gptq
