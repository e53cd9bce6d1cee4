#include "model/block.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace gptq {
namespace {

enum StepIndex : int64_t { kQkv, kOutput, kGateUp, kDown };

// Counts are kept in Words, so that a vector register holds as many counts as elements; a chunk is short enough for
// them.
template <typename Word>
int64_t count_full_exponents(ConstMatrixView values, Word exponent_mask) {
  constexpr int64_t kChunk = 32768;
  const auto* words = static_cast<const Word*>(values.data);
  int64_t total = 0;
  for (int64_t start = 0; start < values.size(); start += kChunk) {
    const int64_t end = std::min(values.size(), start + kChunk);
    Word count = 0;
    for (int64_t i = start; i < end; ++i) {
      count = static_cast<Word>(count + ((words[i] & exponent_mask) == exponent_mask ? 1 : 0));
    }
    total += count;
  }
  return total;
}

// A matrix of host memory in `dtype` on a backend.
Matrix place_matrix(ConstMatrixView host, Backend& backend, DType dtype) {
  Matrix stored = to_device(backend, host.dtype, host.rows, host.cols, host.data);
  if (stored.dtype() == dtype) return stored;
  Matrix converted(backend, dtype, stored.rows(), stored.cols());
  backend.convert(stored, converted);
  return converted;
}

std::string join(std::string_view a, std::string_view b) { return cat(a, ".", b); }

std::string block_prefix(const ModelConfig& config, int64_t index) {
  return cat(config.architecture->blocks, ".", index, ".");
}

// Some rows of a batch's matrices.
struct Rows {
  int64_t first = 0, count = 0;
  MatrixView of(Matrix& matrix) const { return matrix.view().row_range(first, count); }
};

Matrix clone_shape(Backend& backend, ConstMatrixView like) { return Matrix(backend, like.dtype, like.rows, like.cols); }

}  // namespace

// NaN and infinity are the values whose exponent bits are all ones.
int64_t count_nonfinite(ConstMatrixView values) {
  if (values.dtype == DType::f32) return count_full_exponents<uint32_t>(values, 0x7f800000U);
  if (values.dtype == DType::f16) return count_full_exponents<uint16_t>(values, 0x7c00U);
  if (values.dtype == DType::bf16) return count_full_exponents<uint16_t>(values, 0x7f80U);
  return 0;
}

std::string block_module(const ModelConfig& config, int64_t index) {
  return cat(config.architecture->blocks, ".", index);
}

StateUse state_use(int64_t step, bool keeps_inputs) {
  if (!keeps_inputs)
    return {.reads_residual = true, .reads_input = false, .writes_residual = step == kGateUp || step > kDown};
  switch (step) {
    case kQkv:
      return {.reads_residual = true, .reads_input = false, .writes_residual = false};
    case kOutput:
    case kDown:
      return {.reads_residual = false, .reads_input = true, .writes_residual = false};
    default:  // kGateUp, finish
      return {};
  }
}

std::vector<std::vector<LinearSpec>> step_specs(const ModelConfig& config, int64_t block) {
  const Architecture& names = *config.architecture;
  const std::string prefix = block_prefix(config, block);
  const int64_t q_width = config.heads * config.head_dim, kv_width = config.kv_heads * config.head_dim;
  const auto spec = [&](std::string_view name, int64_t out, int64_t in, bool bias, std::string_view fused = {}) {
    return LinearSpec{cat(prefix, name), out, in, bias, fused.empty() ? "" : cat(prefix, fused)};
  };
  return {{spec(names.q, q_width, config.hidden, config.attention_bias, names.fused_qkv),
           spec(names.k, kv_width, config.hidden, config.attention_bias, names.fused_qkv),
           spec(names.v, kv_width, config.hidden, config.attention_bias, names.fused_qkv)},
          {spec(names.o, config.hidden, q_width, config.attention_bias)},
          {spec(names.gate, config.intermediate, config.hidden, config.mlp_bias, names.fused_gate_up),
           spec(names.up, config.intermediate, config.hidden, config.mlp_bias, names.fused_gate_up)},
          {spec(names.down, config.hidden, config.intermediate, config.mlp_bias)}};
}

LinearSpec head_spec(const ModelConfig& config) {
  return {std::string(config.architecture->head), config.vocabulary, config.hidden, false, ""};
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
  const std::string head = join(names.head, "weight");
  const bool quantized_head = reader_ && !checkpoint_.has(head);
  if (!config_.tied_embeddings && !quantized_head) check_float(head, {config_.vocabulary, config_.hidden});
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

void refuse_nonfinite(const Checkpoint& checkpoint, const StoredTensor& tensor, int64_t count) {
  if (count == 0) return;
  throw InputError(cat(checkpoint.folder().string(), ": NaN or infinity at ", count, " places of tensor '", tensor.name,
                       "' ", shape_string(tensor.shape), ": the checkpoint is damaged; download or export it again"));
}

void Model::check_finite(const StoredTensor& tensor, ConstMatrixView values) const {
  refuse_nonfinite(checkpoint_, tensor, count_nonfinite(values));
}

StagedBlock Model::stage(int64_t index, const LoadTensor& load, bool use_reader) const {
  const Architecture& names = *config_.architecture;
  const std::string prefix = block_prefix(config_, index);
  const auto tensor = [&](const std::string& name, const std::vector<int64_t>& shape) {
    return load(checkpoint_.tensor(name, shape));
  };
  StagedBlock staged{.index = index};
  staged.attention_norm = tensor(cat(prefix, names.attention_norm, ".weight"), {config_.hidden});
  staged.mlp_norm = tensor(cat(prefix, names.mlp_norm, ".weight"), {config_.hidden});
  for (const auto& specs : step_specs(config_, index)) {
    auto& step = staged.steps.emplace_back();
    for (const LinearSpec& spec : specs) {
      StagedBlock::StagedLinear& linear = step.emplace_back();
      linear.name = spec.name;
      if (use_reader) linear.weight = reader_(spec);
      if (!linear.weight) {
        // Shared because std::function must be copyable, which a matrix is not.
        auto weight = std::make_shared<Matrix>(tensor(spec.name + ".weight", {spec.out_features, spec.in_features}));
        linear.weight = [weight](Backend& backend, DType dtype) { return place_matrix(*weight, backend, dtype); };
      }
      if (spec.bias) linear.bias = tensor(spec.name + ".bias", {spec.out_features});
    }
  }
  return staged;
}

StagedBlock Model::stage_block(int64_t index, Memory& memory) const {
  const auto load = [&](const StoredTensor& tensor) {
    Matrix values = checkpoint_.load(tensor, memory);
    check_finite(tensor, values);
    return values;
  };
  return stage(index, load, static_cast<bool>(reader_));
}

StagedBlock Model::blank_block(int64_t index, Memory& memory) const {
  const auto load = [&](const StoredTensor& tensor) {
    const ConstMatrixView like = tensor.matrix();
    return Matrix(memory, like.dtype, like.rows, like.cols);
  };
  return stage(index, load, false);
}

Linear Model::place(const StagedBlock::StagedLinear& staged, Backend& backend) const {
  Linear linear{.name = staged.name, .weight = staged.weight(backend, dtype_)};
  if (!staged.bias.empty()) linear.bias = place_matrix(staged.bias, backend, dtype_);
  return linear;
}

Block Model::begin_block(const StagedBlock& staged, Backend& backend) const {
  Block block{.index = staged.index, .backend = &backend};
  block.attention_norm = place_matrix(staged.attention_norm, backend, dtype_);
  block.mlp_norm = place_matrix(staged.mlp_norm, backend, dtype_);
  for (const auto& linears : staged.steps) {
    Step& step = block.steps.emplace_back();
    for (const auto& linear : linears) step.linears.push_back({.name = linear.name});
  }
  return block;
}

void Model::load_step(StagedBlock& staged, Block& block, int64_t step) const {
  for (size_t i = 0; i < staged.steps[step].size(); ++i) {
    block.steps[step].linears[i] = place(staged.steps[step][i], *block.backend);
    staged.steps[step][i] = {};
  }
}

void Model::drop_step(Block& block, int64_t step) {
  for (Linear& linear : block.steps[step].linears) {
    linear.weight = Matrix();
    linear.bias = Matrix();
  }
}

Block Model::load_block(const StagedBlock& staged, Backend& backend) const {
  Block block = begin_block(staged, backend);
  for (size_t s = 0; s < staged.steps.size(); ++s) {
    for (size_t i = 0; i < staged.steps[s].size(); ++i) block.steps[s].linears[i] = place(staged.steps[s][i], backend);
  }
  return block;
}

Batch Model::embed(std::span<const std::vector<int32_t>> sequences, Backend& backend, ThreadPool* pool) const {
  Batch batch{.offsets = {0}};
  std::map<int32_t, std::vector<int64_t>> rows_of;  // where each id stands, in order of ids so that reading is too
  for (const std::vector<int32_t>& sequence : sequences) {
    if (depends_on_length(config_.rope) && sequence.size() != sequences[0].size()) {
      throw InputError(cat("sequences of ", sequences[0].size(), " and ", sequence.size(),
                           " tokens in one batch, but this model's rope depends on the length: group them by length"));
    }
    int64_t row = batch.tokens();
    for (const int32_t id : sequence) {
      if (id < 0 || id >= config_.vocabulary) {
        throw InputError(cat("token id ", id, " lies outside the model's vocabulary of ", config_.vocabulary,
                             ": the text was tokenized for another model"));
      }
      rows_of[id].push_back(row++);
    }
    batch.offsets.push_back(row);
  }
  const StoredTensor& table = checkpoint_.tensor(join(config_.architecture->embedding, "weight"));
  const ConstMatrixView like = table.matrix();
  const size_t row_bytes = static_cast<size_t>(like.cols) * size_of(like.dtype);
  Matrix rows(backend.staging_memory(), like.dtype, batch.tokens(), like.cols);
  const std::vector<std::pair<int32_t, std::vector<int64_t>>> wanted(rows_of.begin(), rows_of.end());
  constexpr int64_t kTask = 256;  // rows
  std::atomic<int64_t> bad = 0;
  const auto read_some = [&](int64_t task) {
    const auto end = std::min<int64_t>(static_cast<int64_t>(wanted.size()), (task + 1) * kTask);
    for (int64_t w = task * kTask; w < end; ++w) {
      const auto& [id, places] = wanted[w];
      const MatrixView first = rows.view().row_range(places[0], 1);
      checkpoint_.read(table, static_cast<size_t>(id) * row_bytes, row_bytes, first.data);
      bad += count_nonfinite(first);
      for (size_t i = 1; i < places.size(); ++i)
        std::memcpy(rows.view().row_range(places[i], 1).data, first.data, row_bytes);
    }
  };
  const int64_t tasks = (static_cast<int64_t>(wanted.size()) + kTask - 1) / kTask;
  if (pool != nullptr) {
    pool->for_each(tasks, read_some);
  } else {
    for (int64_t task = 0; task < tasks; ++task) read_some(task);
  }
  refuse_nonfinite(checkpoint_, table, bad);
  batch.residual = place_matrix(rows, backend, dtype_);
  return batch;
}

// Large, so it is read, checked and uploaded in parts.
void Model::set_blank_head() {
  const Architecture& names = *config_.architecture;
  const ConstMatrixView like =
      checkpoint_.tensor(join(config_.tied_embeddings ? names.embedding : names.head, "weight")).matrix();
  final_norm_ = Matrix(*head_backend_, dtype_, 1, config_.hidden);
  head_ = Matrix(*head_backend_, like.dtype, like.rows, like.cols);
}

const Matrix& Model::head() {
  if (!head_.empty()) return head_;
  if (reader_ && !config_.tied_embeddings) {
    if (const PlaceWeight place = reader_(head_spec(config_))) return head_ = place(*head_backend_, dtype_);
  }
  constexpr int64_t kPart = int64_t{32} << 20;
  const Architecture& names = *config_.architecture;
  const StoredTensor& tensor =
      checkpoint_.tensor(join(config_.tied_embeddings ? names.embedding : names.head, "weight"));
  const ConstMatrixView like = tensor.matrix();
  const auto row_bytes = like.cols * static_cast<int64_t>(size_of(like.dtype));
  const int64_t part_rows = std::max<int64_t>(1, kPart / std::max<int64_t>(row_bytes, 1));
  Matrix head(*head_backend_, like.dtype, like.rows, like.cols);
  int64_t bad = 0;
  for (int64_t first = 0; first < like.rows; first += part_rows) {
    const int64_t count = std::min(part_rows, like.rows - first);
    Matrix part(head_backend_->staging_memory(), like.dtype, count, like.cols);
    checkpoint_.read(tensor, static_cast<size_t>(first * row_bytes), part.bytes(), part.view().data);
    bad += count_nonfinite(part);
    head_backend_->upload(head.view().row_range(first, count), part.view().data);
  }
  refuse_nonfinite(checkpoint_, tensor, bad);
  return head_ = std::move(head);
}

const Matrix& Model::final_norm() {
  if (!final_norm_.empty()) return final_norm_;
  const StoredTensor& tensor = checkpoint_.tensor(join(config_.architecture->final_norm, "weight"));
  const Matrix stored = checkpoint_.load(tensor);
  check_finite(tensor, stored);
  return final_norm_ = place_matrix(stored, *head_backend_, dtype_);
}

Matrix Model::take_head() {
  head();
  if (head_.dtype() == dtype_) return std::move(head_);
  Matrix converted(*head_backend_, dtype_, head_.rows(), head_.cols());
  head_backend_->convert(head_, converted);
  head_ = Matrix();
  return converted;
}

Matrix Model::head_input(const Batch& batch) { return normed(*head_backend_, batch, final_norm()); }

Matrix Model::apply(Backend& backend, const Linear& linear, ConstMatrixView x) const {
  Matrix y(backend, dtype_, x.rows, linear.weight.rows());
  backend.linear(x, linear.weight, linear.bias, y);
  return y;
}

const Model::RopeMatrices& Model::rope_for(const Batch& batch, Backend& backend) {
  int64_t length = 0;
  for (size_t s = 0; s + 1 < batch.offsets.size(); ++s)
    length = std::max(length, batch.offsets[s + 1] - batch.offsets[s]);
  RopeMatrices& rope = rope_[&backend];
  const bool fits = depends_on_length(config_.rope) ? rope.cos.rows() == length : rope.cos.rows() >= length;
  if (!fits) {
    const RopeTable table = rope_table(config_.rope, length);
    rope.cos = to_device(backend, DType::f32, table.positions, table.half_dim, table.cos.data());
    rope.sin = to_device(backend, DType::f32, table.positions, table.half_dim, table.sin.data());
  }
  return rope;
}

template <typename Body>
void Model::in_passes(const Batch& batch, const Body& body) {
  const auto sequences = static_cast<int64_t>(batch.offsets.size()) - 1;
  for (int64_t first = 0; first < sequences;) {
    const int64_t count = std::min(sequences_at_once_, sequences - first), start = batch.offsets[first];
    std::vector<int64_t> offsets(batch.offsets.begin() + first, batch.offsets.begin() + first + count + 1);
    for (int64_t& offset : offsets) offset -= start;
    try {
      body(Rows{start, offsets.back()}, offsets);
    } catch (const OutOfMemory&) {
      if (count == 1) throw;
      sequences_at_once_ = (count + 1) / 2;
      continue;
    }
    first += count;
  }
}

void Model::add_to_residual(Backend& backend, const Linear& linear, Batch& batch) {
  in_passes(batch, [&](Rows rows, SequenceOffsets) {
    const Matrix y = apply(backend, linear, rows.of(batch.input));
    backend.add(y, 1, rows.of(batch.residual));
  });
  batch.input = Matrix();
}

Matrix Model::normed(Backend& backend, const Batch& batch, const Matrix& norm) const {
  Matrix y = clone_shape(backend, batch.residual);
  backend.rms_norm(batch.residual, norm, config_.norm_eps, y);
  return y;
}

int64_t Model::first_rebuilt(int64_t step) { return step <= kGateUp ? kQkv : kGateUp; }

void Model::rebuild_input(const Block& block, int64_t step, Batch& batch) {
  if (step == kQkv) return;
  if (step <= kGateUp) {
    for (int64_t s = kQkv; s < step; ++s) advance(block, s, batch);
    return;
  }
  batch.input = normed(*block.backend, batch, block.mlp_norm);
  for (int64_t s = kDown; s < step; ++s) advance(block, s, batch);
}

ConstMatrixView Model::advance(const Block& block, int64_t step, Batch& batch) {
  Backend& backend = *block.backend;
  const auto linears = [&](StepIndex index) -> const std::vector<Linear>& { return block.steps[index].linears; };
  switch (step) {
    case kQkv:
      batch.input = normed(backend, batch, block.attention_norm);
      break;
    case kOutput: {
      const RopeMatrices& rope = rope_for(batch, backend);
      const AttentionShape shape{.heads = config_.heads,
                                 .kv_heads = config_.kv_heads,
                                 .head_dim = config_.head_dim,
                                 .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config_.head_dim)))};
      Matrix y(backend, dtype_, batch.tokens(), config_.heads * config_.head_dim);
      in_passes(batch, [&](Rows rows, SequenceOffsets offsets) {
        const ConstMatrixView x = rows.of(batch.input);
        Matrix q = apply(backend, linears(kQkv)[0], x), k = apply(backend, linears(kQkv)[1], x),
               v = apply(backend, linears(kQkv)[2], x);
        backend.rope(rope.cos, rope.sin, offsets, RotaryOrder::halves, config_.head_dim, q);
        backend.rope(rope.cos, rope.sin, offsets, RotaryOrder::halves, config_.head_dim, k);
        backend.attention(q, k, v, offsets, shape, rows.of(y));
      });
      batch.input = std::move(y);
      break;
    }
    case kGateUp:
      add_to_residual(backend, linears(kOutput)[0], batch);
      batch.input = normed(backend, batch, block.mlp_norm);
      break;
    case kDown: {
      Matrix y(backend, dtype_, batch.tokens(), config_.intermediate);
      in_passes(batch, [&](Rows rows, SequenceOffsets) {
        const ConstMatrixView x = rows.of(batch.input);
        const Matrix gate = apply(backend, linears(kGateUp)[0], x), up = apply(backend, linears(kGateUp)[1], x);
        backend.gate(gate, up, config_.activation, rows.of(y));
      });
      batch.input = std::move(y);
      break;
    }
    default:
      throw Error(cat("a block has 4 steps, not a step ", step));
  }
  return batch.input;
}

void Model::finish(const Block& block, Batch& batch) {
  add_to_residual(*block.backend, block.steps[kDown].linears[0], batch);
}

void Model::forward(const Block& block, Batch& batch) {
  for (int64_t step = kQkv; step <= kDown; ++step) advance(block, step, batch);
  finish(block, batch);
}

Matrix Model::logits(const Batch& batch, int64_t first, int64_t count) {
  Backend& backend = *head_backend_;
  const ConstMatrixView hidden = batch.residual.view().row_range(first, count);
  Matrix normed = clone_shape(backend, hidden), logits(backend, DType::f32, count, config_.vocabulary);
  backend.rms_norm(hidden, final_norm(), config_.norm_eps, normed);
  backend.linear(normed, head(), {}, logits);
  return logits;
}

}  // namespace gptq
