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
  Backend* backend = nullptr;    // where it is and computes
  std::vector<StepKind> kinds;   // of its steps
  std::vector<int64_t> experts;  // of its steps; -1: none
  std::vector<Step> steps;       // a step that is not loaded has linears without weights
  Parts parts;
  Matrix slopes;  // [1, heads] f32, with ALiBi
};

// Makes the weight [out, in] of a linear on a backend, from what was read of it into host memory.
using PlaceWeight = std::function<Matrix(Backend& backend, DType dtype)>;
// Reads a quantized linear into host memory; an empty function for one whose plain weight is in the checkpoint. Any
// thread may call it.
using WeightReader = std::function<PlaceWeight(const LinearSpec& spec)>;

// A block in host memory, on its way to a device.
struct StagedBlock {
  struct StagedLinear {
    std::string name;
    PlaceWeight weight;
    Matrix bias;  // in the stored dtype, or empty
  };
  int64_t index = 0;
  Parts parts;  // f32
  std::vector<StepKind> kinds;
  std::vector<int64_t> experts;
  std::vector<std::vector<StagedLinear>> steps;
};

}  // namespace gptq
