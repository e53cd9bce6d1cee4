#include "model/weights.h"

#include <memory>

#include "model/tensor_reader.h"

namespace gptq {

StagedBlock Weights::stage(int64_t index, const TensorReader& tensors, bool use_reader) const {
  StagedBlock staged{.index = index};
  for (const PartSpec& spec : part_specs(config_, index))
    staged.parts[static_cast<size_t>(spec.part)] = tensors.read_part(spec);
  for (const auto& specs : step_specs(config_, index)) {
    auto& step = staged.steps.emplace_back();
    staged.kinds.push_back(specs[0].step);
    staged.experts.push_back(specs[0].expert);
    for (const LinearSpec& spec : specs) {
      StagedBlock::StagedLinear& linear = step.emplace_back();
      linear.name = spec.name;
      if (use_reader) linear.weight = reader_(spec);
      if (!linear.weight) {
        // Shared because std::function must be copyable, which a matrix is not.
        auto weight = std::make_shared<Matrix>(tensors.read_weight(spec));
        linear.weight = [weight](Backend& backend, DType dtype) { return place_matrix(*weight, backend, dtype); };
      }
      if (spec.bias) linear.bias = tensors.read_bias(spec);
    }
  }
  return staged;
}

StagedBlock Weights::stage_block(int64_t index, Memory& memory) const {
  return stage(index, {checkpoint_, memory}, static_cast<bool>(reader_));
}

StagedBlock Weights::blank_block(int64_t index, Memory& memory) const {
  return stage(index, {checkpoint_, memory, false}, false);
}

Linear Weights::place(const StagedBlock::StagedLinear& staged, Backend& backend) const {
  Weight weight = staged.weight(backend, dtype_);
  Linear linear{.name = staged.name,
                .weight = std::move(weight.dense),
                .packed = std::move(weight.packed),
                .is_for_texts = use_ == ModelUse::texts};
  if (!staged.bias.empty()) linear.bias = place_matrix(staged.bias, backend, dtype_);
  return linear;
}

Block Weights::begin_block(const StagedBlock& staged, Backend& backend) const {
  Block block{.index = staged.index, .backend = &backend, .kinds = staged.kinds, .experts = staged.experts};
  for (size_t part = 0; part < kParts; ++part) block.parts[part] = place_part(staged.parts[part], backend);
  if (!config_.slopes.empty()) block.slopes = to_device(backend, DType::f32, 1, config_.heads, config_.slopes.data());
  for (const auto& linears : staged.steps) {
    Step& step = block.steps.emplace_back();
    for (const auto& linear : linears) step.linears.push_back({.name = linear.name});
  }
  return block;
}

void Weights::load_step(StagedBlock& staged, Block& block, int64_t step) const {
  for (size_t i = 0; i < staged.steps[step].size(); ++i) {
    block.steps[step].linears[i] = place(staged.steps[step][i], *block.backend);
    staged.steps[step][i] = {};
  }
}

void Weights::drop_step(Block& block, int64_t step) {
  for (Linear& linear : block.steps[step].linears) {
    linear.weight = Matrix();
    linear.bias = Matrix();
  }
}

Block Weights::load_block(const StagedBlock& staged, Backend& backend) const {
  Block block = begin_block(staged, backend);
  for (size_t s = 0; s < staged.steps.size(); ++s) {
    for (size_t i = 0; i < staged.steps[s].size(); ++i) block.steps[s].linears[i] = place(staged.steps[s][i], backend);
  }
  return block;
}

}  // namespace gptq
