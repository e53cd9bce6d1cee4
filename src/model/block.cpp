#include "model/block.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace gptq {
namespace {

enum StepIndex : int64_t { kQkv, kOutput, kGateUp, kDown };

// Counts are kept in Words, so that a vector register holds as many counts as elements; a chunk is short enough for
// them.
template <typename Word>
int64_t count_full_exponents(const StoredTensor& tensor, Word exponent_mask) {
  constexpr size_t kChunk = 32768;
  const size_t size = tensor.bytes / sizeof(Word);
  int64_t total = 0;
  for (size_t start = 0; start < size; start += kChunk) {
    const size_t end = std::min(size, start + kChunk);
    Word count = 0;
    for (size_t i = start; i < end; ++i) {
      Word word;  // a file's tensors need not be aligned
      std::memcpy(&word, tensor.data + i * sizeof(Word), sizeof(Word));
      count = static_cast<Word>(count + ((word & exponent_mask) == exponent_mask ? 1 : 0));
    }
    total += count;
  }
  return total;
}

std::string join(std::string_view a, std::string_view b) { return cat(a, ".", b); }

std::string block_prefix(const ModelConfig& config, int64_t index) {
  return cat(config.architecture->blocks, ".", index, ".");
}

Matrix clone_shape(Backend& backend, ConstMatrixView like) { return Matrix(backend, like.dtype, like.rows, like.cols); }

}  // namespace

// NaN and infinity are the values whose exponent bits are all ones.
int64_t count_nonfinite(const StoredTensor& tensor) {
  if (tensor.dtype == "F32") return count_full_exponents<uint32_t>(tensor, 0x7f800000U);
  if (tensor.dtype == "F16") return count_full_exponents<uint16_t>(tensor, 0x7c00U);
  if (tensor.dtype == "BF16") return count_full_exponents<uint16_t>(tensor, 0x7f80U);
  return 0;
}

std::vector<std::vector<LinearSpec>> step_specs(const ModelConfig& config, int64_t block) {
  const Architecture& names = *config.architecture;
  const std::string prefix = block_prefix(config, block);
  const int64_t q_width = config.heads * config.head_dim, kv_width = config.kv_heads * config.head_dim;
  const auto spec = [&](std::string_view name, int64_t out, int64_t in, bool bias) {
    return LinearSpec{cat(prefix, name), out, in, bias};
  };
  return {{spec(names.q, q_width, config.hidden, config.attention_bias),
           spec(names.k, kv_width, config.hidden, config.attention_bias),
           spec(names.v, kv_width, config.hidden, config.attention_bias)},
          {spec(names.o, config.hidden, q_width, config.attention_bias)},
          {spec(names.gate, config.intermediate, config.hidden, config.mlp_bias),
           spec(names.up, config.intermediate, config.hidden, config.mlp_bias)},
          {spec(names.down, config.hidden, config.intermediate, config.mlp_bias)}};
}

Model::Model(const Checkpoint& checkpoint, Backend& backend, DType dtype, WeightReader reader)
    : checkpoint_(checkpoint),
      backend_(backend),
      dtype_(dtype),
      reader_(std::move(reader)),
      config_(parse_model_config(checkpoint.config(), checkpoint.folder())) {
  check_tensors();
}

void Model::check_tensors() const {
  const Architecture& names = *config_.architecture;
  const auto check_float = [&](const std::string& name, const std::vector<int64_t>& shape) {
    const StoredTensor& tensor = checkpoint_.tensor(name, shape);
    const std::optional<DType> dtype = parse_safetensors_dtype(tensor.dtype);
    if (!dtype || !is_float(*dtype)) {
      throw UnsupportedError(cat(checkpoint_.folder().string(), ": tensor '", name, "' is stored as ", tensor.dtype,
                                 "; weights in F32, F16 and BF16 are read"));
    }
  };
  check_float(join(names.embedding, "weight"), {config_.vocabulary, config_.hidden});
  check_float(join(names.final_norm, "weight"), {config_.hidden});
  if (!config_.tied_embeddings) check_float(join(names.head, "weight"), {config_.vocabulary, config_.hidden});
  for (int64_t block = 0; block < config_.blocks; ++block) {
    const std::string prefix = block_prefix(config_, block);
    check_float(cat(prefix, names.attention_norm, ".weight"), {config_.hidden});
    check_float(cat(prefix, names.mlp_norm, ".weight"), {config_.hidden});
    for (const auto& step : step_specs(config_, block)) {
      for (const LinearSpec& linear : step) {
        if (!reader_) check_float(linear.name + ".weight", {linear.out_features, linear.in_features});
        if (linear.bias) check_float(linear.name + ".bias", {linear.out_features});
      }
    }
  }
}

Matrix Model::upload(const StoredTensor& tensor) const {
  if (const int64_t bad = count_nonfinite(tensor); bad > 0) {
    throw InputError(cat(checkpoint_.folder().string(), ": NaN or infinity at ", bad, " places of tensor '",
                         tensor.name, "' ", shape_string(tensor.shape),
                         ": the checkpoint is damaged; download or export it again"));
  }
  const ConstMatrixView stored = tensor.matrix();
  Matrix matrix = to_device(backend_, stored.dtype, stored.rows, stored.cols, stored.data);
  checkpoint_.forget(tensor);
  return matrix;
}

Matrix Model::read(const std::string& name, const std::vector<int64_t>& shape) const {
  Matrix stored = upload(checkpoint_.tensor(name, shape));
  if (stored.dtype() == dtype_) return stored;
  Matrix converted(backend_, dtype_, stored.rows(), stored.cols());
  backend_.convert(stored, converted);
  return converted;
}

Linear Model::read_linear(const LinearSpec& spec) const {
  Linear linear{.name = spec.name};
  if (reader_) linear.weight = reader_(spec, dtype_);
  if (linear.weight.empty()) linear.weight = read(spec.name + ".weight", {spec.out_features, spec.in_features});
  if (spec.bias) linear.bias = read(spec.name + ".bias", {spec.out_features});
  return linear;
}

Block Model::load_block(int64_t index) const {
  const Architecture& names = *config_.architecture;
  const std::string prefix = block_prefix(config_, index);
  Block block{.index = index};
  block.attention_norm = read(cat(prefix, names.attention_norm, ".weight"), {config_.hidden});
  block.mlp_norm = read(cat(prefix, names.mlp_norm, ".weight"), {config_.hidden});
  for (const auto& specs : step_specs(config_, index)) {
    Step& step = block.steps.emplace_back();
    for (const LinearSpec& spec : specs) step.linears.push_back(read_linear(spec));
  }
  return block;
}

Batch Model::embed(std::span<const std::vector<int32_t>> sequences) {
  Batch batch{.offsets = {0}};
  std::vector<int32_t> ids;
  for (const std::vector<int32_t>& sequence : sequences) {
    for (const int32_t id : sequence) {
      if (id >= 0 && id < config_.vocabulary) continue;
      throw InputError(cat("token id ", id, " lies outside the model's vocabulary of ", config_.vocabulary,
                           ": the text was tokenized for another model"));
    }
    if (depends_on_length(config_.rope) && sequence.size() != sequences[0].size()) {
      throw InputError(cat("sequences of ", sequences[0].size(), " and ", sequence.size(),
                           " tokens in one batch, but this model's rope depends on the length: group them by length"));
    }
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    batch.offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  batch.residual = Matrix(backend_, dtype_, batch.tokens(), config_.hidden);
  backend_.gather_rows(embedding(), ids, batch.residual);
  return batch;
}

const Matrix& Model::embedding() {
  if (embedding_.empty()) embedding_ = upload(checkpoint_.tensor(join(config_.architecture->embedding, "weight")));
  return embedding_;
}

const Matrix& Model::head() {
  if (config_.tied_embeddings) return embedding();
  if (head_.empty()) head_ = upload(checkpoint_.tensor(join(config_.architecture->head, "weight")));
  return head_;
}

Matrix Model::apply(const Linear& linear, ConstMatrixView x) const {
  Matrix y(backend_, dtype_, x.rows, linear.weight.rows());
  backend_.linear(x, linear.weight, linear.bias, y);
  return y;
}

const Model::RopeMatrices& Model::rope_for(const Batch& batch) {
  int64_t length = 0;
  for (size_t s = 0; s + 1 < batch.offsets.size(); ++s)
    length = std::max(length, batch.offsets[s + 1] - batch.offsets[s]);
  const bool fits = depends_on_length(config_.rope) ? rope_.cos.rows() == length : rope_.cos.rows() >= length;
  if (!fits) {
    const RopeTable table = rope_table(config_.rope, length);
    rope_.cos = to_device(backend_, DType::f32, table.positions, table.half_dim, table.cos.data());
    rope_.sin = to_device(backend_, DType::f32, table.positions, table.half_dim, table.sin.data());
  }
  return rope_;
}

ConstMatrixView Model::advance(const Block& block, int64_t step, Batch& batch) {
  const auto linears = [&](StepIndex index) -> const std::vector<Linear>& { return block.steps[index].linears; };
  const auto add_to_residual = [&](const Linear& linear) { backend_.add(apply(linear, batch.input), batch.residual); };
  const auto normed = [&](const Matrix& norm) {
    Matrix y = clone_shape(backend_, batch.residual);
    backend_.rms_norm(batch.residual, norm, config_.norm_eps, y);
    return y;
  };
  switch (step) {
    case kQkv:
      batch.input = normed(block.attention_norm);
      break;
    case kOutput: {
      Matrix q = apply(linears(kQkv)[0], batch.input), k = apply(linears(kQkv)[1], batch.input),
             v = apply(linears(kQkv)[2], batch.input);
      batch.input = Matrix();
      const RopeMatrices& rope = rope_for(batch);
      backend_.rope(rope.cos, rope.sin, batch.offsets, config_.head_dim, q);
      backend_.rope(rope.cos, rope.sin, batch.offsets, config_.head_dim, k);
      const AttentionShape shape{.heads = config_.heads,
                                 .kv_heads = config_.kv_heads,
                                 .head_dim = config_.head_dim,
                                 .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config_.head_dim)))};
      Matrix y = clone_shape(backend_, q);
      backend_.attention(q, k, v, batch.offsets, shape, y);
      batch.input = std::move(y);
      break;
    }
    case kGateUp:
      add_to_residual(linears(kOutput)[0]);
      batch.input = Matrix();
      batch.input = normed(block.mlp_norm);
      break;
    case kDown: {
      const Matrix gate = apply(linears(kGateUp)[0], batch.input), up = apply(linears(kGateUp)[1], batch.input);
      batch.input = Matrix();
      Matrix y = clone_shape(backend_, gate);
      backend_.gate(gate, up, config_.activation, y);
      batch.input = std::move(y);
      break;
    }
    default:
      throw Error(cat("a block has 4 steps, not a step ", step));
  }
  return batch.input;
}

void Model::finish(const Block& block, Batch& batch) {
  backend_.add(apply(block.steps[kDown].linears[0], batch.input), batch.residual);
  batch.input = Matrix();
}

void Model::forward(const Block& block, Batch& batch) {
  for (int64_t step = kQkv; step <= kDown; ++step) advance(block, step, batch);
  finish(block, batch);
}

Matrix Model::logits(const Batch& batch, int64_t first, int64_t count) {
  if (final_norm_.empty()) final_norm_ = read(join(config_.architecture->final_norm, "weight"), {config_.hidden});
  const ConstMatrixView hidden = batch.residual.view().row_range(first, count);
  Matrix normed = clone_shape(backend_, hidden), logits(backend_, DType::f32, count, config_.vocabulary);
  backend_.rms_norm(hidden, final_norm_, config_.norm_eps, normed);
  backend_.linear(normed, head(), {}, logits);
  return logits;
}

}  // namespace gptq
