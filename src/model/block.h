// A block's weights: on a backend, in steps of linears that read one input; or staged in host memory.
// One step has one Hessian.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/specs.h"

namespace gptq {

struct Linear {
  std::string name;  // module path: "model.layers.0.self_attn.q_proj"
  Matrix weight;     // [out_features, in_features], compute dtype
  Matrix bias;       // [1, out_features] or empty
};

struct Step {
  std::vector<Linear> linears;
};

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
// y = x w' + bias in x's dtype, in a matrix with room for at least `room` rows.
Matrix apply(Backend& backend, const Linear& linear, ConstMatrixView x, int64_t room = 0);

// Makes a linear's weight [out, in] on a backend from data in host memory.
using PlaceWeight = std::function<Matrix(Backend& backend, DType dtype)>;
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
