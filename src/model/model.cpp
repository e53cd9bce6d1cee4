#include "model/model.h"

#include <utility>

#include "base/error.h"
#include "model/tensor_checks.h"

namespace gptq {

Model::Model(const Checkpoint& checkpoint, Backend& backend, DType dtype, WeightReader reader, ModelUse use)
    : backend_(backend),
      dtype_(dtype),
      reader_(std::move(reader)),
      config_(parse_model_config(checkpoint)),
      weights_(checkpoint, config_, dtype, reader_, use),
      embedding_(checkpoint, config_, dtype),
      output_head_(checkpoint, config_, backend, dtype, reader_, use),
      ropes_(config_),
      residual_(config_, dtype, micro_batches_),
      attention_(config_, dtype, ropes_, micro_batches_),
      latent_attention_(config_, dtype, attention_, micro_batches_),
      convolution_(config_, dtype, micro_batches_),
      state_space_(config_, dtype, micro_batches_),
      delta_rule_(config_, dtype, micro_batches_),
      mlp_(config_, dtype, micro_batches_),
      experts_(config_, dtype, mlp_) {
  check_tensors(checkpoint, config_, static_cast<bool>(reader_));
}

void Model::enter(const Block& block, int64_t step, Batch& batch) {
  if (step >= static_cast<int64_t>(block.kinds.size()))
    throw Error(cat("a block has ", block.kinds.size(), " steps, not a step ", step));
  if (step == first_of_mlp(block)) return begin_mlp(block, batch);
  if (step == 0) {
    batch.input = residual_.mixer_input(block, batch);
    return;
  }
  switch (block.kinds[static_cast<size_t>(step) - 1]) {  // the step whose linears are applied
    case StepKind::attention_in:
    case StepKind::mixer_in:
      batch.input = mix(block, batch);
      break;
    case StepKind::latent_in:
      batch.input = latent_attention_.latents(block, batch);
      break;
    case StepKind::latent_query:
      break;
    case StepKind::latent_key_value:
      batch.input = latent_attention_.attend(block, batch);
      break;
    case StepKind::mlp_in:
      batch.input = mlp_.activate(block, step - 1, batch);
      break;
    case StepKind::shared_out:
      experts_.add_shared(block, step - 1, batch);
      break;
    case StepKind::expert_out:
      experts_.add_expert(block, step - 1, batch);
      break;
    default:  // inputs of shared_out and expert_out are made when visited
      break;
  }
}

// The input of the mixer's last step, or of both: attention's columns come first.
Matrix Model::mix(const Block& block, Batch& batch) {
  const Mixer mixer = config_.kinds[static_cast<size_t>(block.index)].mixer;
  if (mixer == Mixer::attention) return attention_.attend(block, batch);
  const int64_t attended = mixer == Mixer::attention_and_state_space ? config_.heads * config_.head_dim : 0;
  const int64_t width = mixer == Mixer::convolution  ? config_.hidden
                        : mixer == Mixer::delta_rule ? config_.delta.value_width()
                                                     : config_.state_space.width();
  Matrix mixed(*block.backend, dtype_, batch.tokens(), attended + width);
  if (attended > 0)
    block.backend->run(ops::Convert{.x = attention_.attend(block, batch), .y = mixed.view().col_range(0, attended)});
  recur(block, batch, mixed.view().col_range(attended, width));
  return mixed;
}

// A recurrent mixer's result for the tokens of a batch. It goes over all tokens before them again.
void Model::recur(const Block& block, const Batch& batch, MatrixView y) {
  if (batch.cache == nullptr) return recur_over(block, batch, y);
  Backend& backend = *block.backend;
  const int64_t before = batch.cache->tokens;
  CachedRows& inputs = batch.cache->blocks[static_cast<size_t>(block.index)].mixer_inputs;
  Batch all;
  all.input = copy_of(backend, inputs.append(backend, before, batch.input));
  all.offsets = {0, all.input.rows()};
  Matrix mixed(backend, dtype_, all.tokens(), y.cols);
  recur_over(block, all, mixed);
  backend.run(ops::Convert{.x = mixed.view().row_range(before, y.rows), .y = y});
}

void Model::recur_over(const Block& block, const Batch& batch, MatrixView y) {
  const Mixer mixer = config_.kinds[static_cast<size_t>(block.index)].mixer;
  if (mixer == Mixer::convolution) return convolution_.mix(block, batch, y);
  if (mixer == Mixer::delta_rule) return delta_rule_.mix(block, batch, y);
  state_space_.mix(block, block.steps.front().linears.back(), batch, y);
}

// From the input of the mixer's last step, if there is one, to that of the MLP or of the experts.
void Model::begin_mlp(const Block& block, Batch& batch) {
  const Matrix mixed = std::exchange(batch.input, Matrix());
  const bool has_mixer = first_of_mlp(block) > 0;
  if (has_mixer && !config_.parallel) residual_.add_mixer(block, mixed, batch);
  Matrix input = residual_.mlp_input(block, batch);
  if (config_.kinds[static_cast<size_t>(block.index)].has_experts) {
    experts_.begin(block, std::move(input), batch);
  } else {
    batch.input = std::move(input);
  }
  if (has_mixer && config_.parallel && !batch.is_rebuilt) residual_.add_mixer(block, mixed, batch);
}

ConstMatrixView Model::input(const Block& block, int64_t step, const Batch& batch) const {
  const StepKind kind = block.kinds[static_cast<size_t>(step)];
  switch (kind) {
    case StepKind::latent_query:
    case StepKind::latent_key_value:
      return latent_attention_.input(kind, batch.input);
    case StepKind::shared_in:
      return experts_.shared_input(batch);
    case StepKind::attention_out:
    case StepKind::mixer_out:
      return residual_.input_of(block, kind, batch.input);
    default:
      return batch.input;
  }
}

void Model::visit_inputs(const Block& block, int64_t step, const Batch& batch, OriginalBatch original, bool all_tokens,
                         const VisitInputs& visit) const {
  const StepKind kind = block.kinds[static_cast<size_t>(step)];
  if (kind == StepKind::shared_out || kind == StepKind::expert_in || kind == StepKind::expert_out)
    return experts_.visit_inputs(block, step, batch, original, all_tokens, visit);
  visit(input(block, step, batch),
        original.batch == nullptr ? ConstMatrixView() : input(*original.block, step, *original.batch));
}

void Model::rebuild_input(const Block& block, int64_t step, Batch& batch) {
  batch.is_rebuilt = true;
  const int64_t mlp = first_of_mlp(block);
  const auto enter_from = [&](int64_t first) {
    for (int64_t s = first; s < step; ++s) enter(block, s, batch);
  };
  if (step < mlp || (step == mlp && !config_.parallel)) return enter_from(0);
  if (config_.parallel) {
    if (step < static_cast<int64_t>(block.steps.size())) enter_from(mlp);
    return;
  }
  batch.input = residual_.mlp_input(block, batch);
  enter_from(mlp + 1);
}

void Model::finish(const Block& block, Batch& batch) {
  const auto steps = static_cast<int64_t>(block.steps.size());
  if (config_.parallel && batch.is_rebuilt) {
    // Both branches read the residual before one of them adds to it.
    const int64_t mlp = first_of_mlp(block);
    for (int64_t step = 0; step < mlp; ++step) enter(block, step, batch);
    const Matrix mixed = std::exchange(batch.input, Matrix());
    for (int64_t step = mlp; step < steps; ++step) enter(block, step, batch);
    residual_.add_mixer(block, mixed, batch);
  }
  if (first_of_mlp(block) == steps) {
    residual_.add_mixer(block, batch.input, batch);
  } else if (config_.kinds[static_cast<size_t>(block.index)].has_experts) {
    experts_.add_expert(block, steps - 1, batch);
    residual_.add_experts(block, experts_.output(block, batch), batch);
    batch.routing = {};
  } else {
    residual_.add_mlp(block, batch.input, batch);
  }
  residual_.end_block(block, batch);
  batch.input = Matrix();
}

void Model::forward(const Block& block, Batch& batch) {
  for (size_t step = 0; step < block.steps.size(); ++step) enter(block, static_cast<int64_t>(step), batch);
  finish(block, batch);
}

}  // namespace gptq
