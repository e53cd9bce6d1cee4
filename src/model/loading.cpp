// Model: opening a checkpoint, and loading its weights to devices.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "model/model.h"
#include "tensor/nonfinite.h"

namespace gptq {
namespace {

// Uploads a host matrix to a backend, converted to `dtype`.
Matrix place_matrix(ConstMatrixView host, Backend& backend, DType dtype) {
  Matrix stored = to_device(backend, host.dtype, host.rows, host.cols, host.data);
  if (stored.dtype() == dtype) return stored;
  Matrix converted(backend, dtype, stored.rows(), stored.cols());
  backend.run(ops::Convert{.x = stored, .y = converted});
  return converted;
}

// Normalizes each row to length 1, rounded to its dtype.
void scale_rows_to_one(MatrixView rows) {
  std::vector<float> wide(static_cast<size_t>(rows.cols));
  const MatrixView one(wide.data(), DType::f32, 1, rows.cols);
  for (int64_t r = 0; r < rows.rows; ++r) {
    reference(ops::Convert{.x = rows.row_range(r, 1), .y = one});
    double squares = 0;
    for (const float value : wide) squares += static_cast<double>(value) * value;
    const double length = std::max(std::sqrt(squares), 1e-12);
    for (float& value : wide) value = static_cast<float>(value / length);
    reference(ops::Convert{.x = one, .y = rows.row_range(r, 1)});
  }
}

std::string tensor_name(const ModelConfig& config, std::string_view module) {
  return module_path(config, module) + ".weight";
}

// The output head's tensor.
std::string head_tensor(const ModelConfig& config) {
  return config.tied_embeddings ? tensor_name(config, config.architecture->embedding) : config.head + ".weight";
}

// Copies out features first + i * stride of a stored matrix [out, in], or [in, out] if `transposed`.
template <typename Element>
void take_features(ConstMatrixView stored, const LinearSpec& spec, MatrixView weight) {
  if (spec.transposed) {
    constexpr int64_t kTile = 64;
    for (int64_t first = 0; first < weight.cols; first += kTile) {
      const int64_t end = std::min(first + kTile, weight.cols);
      for (int64_t out = 0; out < weight.rows; ++out) {
        Element* to = weight.row<Element>(out);
        for (int64_t in = first; in < end; ++in) to[in] = stored.row<Element>(in)[spec.first + out * spec.stride];
      }
    }
    return;
  }
  for (int64_t out = 0; out < weight.rows; ++out)
    std::copy_n(stored.row<Element>(spec.first + out * spec.stride), weight.cols, weight.row<Element>(out));
}

// The expected shape of a part's tensor `name`; vectors may be stored as matrices of one row.
std::vector<int64_t> stored_shape(const Checkpoint& checkpoint, const PartSpec& spec, const std::string& name) {
  if (static_cast<int64_t>(spec.weights.size()) < spec.rows) return {spec.rows, spec.cols};
  const std::vector<int64_t> as_matrix = {1, spec.cols};
  return checkpoint.tensor(name).shape == as_matrix ? as_matrix : std::vector<int64_t>{spec.cols};
}

// A router has one bias per row.
int64_t bias_size(const PartSpec& spec) { return spec.part == Part::router ? spec.rows : spec.cols; }

}  // namespace

struct Model::Loader {
  const Model& model;
  Memory& memory;
  bool reads = true;

  // The tensor in its stored dtype.
  Matrix load(const StoredTensor& tensor) const {
    const ConstMatrixView like = tensor.matrix();
    if (!reads) return {memory, like.dtype, like.rows, like.cols};
    Matrix values = model.checkpoint_.load(tensor, memory);
    model.check_finite(tensor, values);
    return values;
  }

  Matrix load(const std::string& name, const std::vector<int64_t>& shape) const {
    return load(model.checkpoint_.tensor(name, shape));
  }

  // One matrix of a tensor [matrices, rows, cols], or one row of a bias [matrices, cols].
  Matrix load_fused(const StoredTensor& tensor, int64_t index) const {
    const DType dtype = parse_safetensors_dtype(tensor.dtype).value_or(DType::f32);  // checked by the constructor
    const std::vector<int64_t>& shape = tensor.shape;
    const bool is_bias = shape.size() == 2;
    Matrix values(memory, dtype, is_bias ? 1 : shape[1], shape.back());
    if (!reads) return values;
    model.checkpoint_.read(tensor, static_cast<size_t>(index) * values.bytes(), values.bytes(), values.view().data);
    model.check_finite(tensor, values);
    return values;
  }

  Matrix load_weight(const LinearSpec& spec) const {
    const StoredTensor& tensor = model.checkpoint_.tensor(spec.tensor, spec.shape);
    Matrix stored = spec.matrix_index < 0 ? load(tensor) : load_fused(tensor, spec.matrix_index);
    const bool is_whole = !spec.transposed && stored.rows() == spec.out_features;
    if (is_whole) return stored;
    Matrix weight(memory, stored.dtype(), spec.out_features, spec.in_features);
    if (reads)
      size_of(stored.dtype()) == 2 ? take_features<uint16_t>(stored, spec, weight)
                                   : take_features<float>(stored, spec, weight);
    return weight;
  }

  // The linear's own bias tensor if there is one, else its part of a fused one.
  Matrix load_bias(const LinearSpec& spec) const {
    const std::string own = spec.name + ".bias";
    if (spec.matrix_index < 0 || model.checkpoint_.has(own)) return load(own, {spec.out_features});
    const Matrix stored = load_fused(model.checkpoint_.tensor(spec.bias_tensor, spec.bias_shape), spec.matrix_index);
    Matrix bias(memory, stored.dtype(), 1, spec.out_features);
    for (int64_t i = 0; i < spec.out_features && reads; ++i) {
      const ConstMatrixView from = stored.view().col_range(spec.first + i * spec.stride, 1);
      std::memcpy(bias.view().col_range(i, 1).data, from.data, size_of(stored.dtype()));
    }
    return bias;
  }

  Affine load(const PartSpec& spec) const {
    Affine part{.weight = Matrix(memory, DType::f32, spec.rows, spec.cols)};
    const auto add_constant = [](MatrixView values, float scale, float constant) {
      for (int64_t r = 0; r < values.rows; ++r) {
        for (int64_t c = 0; c < values.cols; ++c)
          values.row<float>(r)[c] = scale * (values.row<float>(r)[c] + constant);
      }
    };
    if (spec.weights.empty() && reads) {
      reference(ops::Clear{.y = part.weight});
      add_constant(part.weight, spec.scale, 1);
    }
    int64_t row = 0;
    for (const std::string& name : spec.weights) {
      const Matrix values = load(name, stored_shape(model.checkpoint_, spec, name));
      if (reads) reference(ops::Convert{.x = values, .y = part.weight.view().row_range(row, values.rows())});
      row += values.rows();
    }
    if (!spec.weights.empty() && reads) add_constant(part.weight, spec.scale, spec.plus_one ? 1 : 0);
    if (!spec.bias.empty()) {
      const Matrix values = load(spec.bias, {bias_size(spec)});
      part.bias = Matrix(memory, DType::f32, 1, bias_size(spec));
      if (reads) {
        reference(ops::Convert{.x = values, .y = part.bias});
        add_constant(part.bias, spec.scale, 0);
      }
    }
    return part;
  }
};

namespace {

Affine place_part(const Affine& part, Backend& backend) {
  Affine placed;
  if (!part.weight.empty()) placed.weight = place_matrix(part.weight, backend, DType::f32);
  if (!part.bias.empty()) placed.bias = place_matrix(part.bias, backend, DType::f32);
  return placed;
}

}  // namespace

Model::Model(const Checkpoint& checkpoint, Backend& backend, DType dtype, WeightReader reader)
    : checkpoint_(checkpoint),
      backend_(backend),
      dtype_(dtype),
      reader_(std::move(reader)),
      config_(parse_model_config(checkpoint)) {
  check_tensors();
}

void Model::check_tensors() const {
  const Architecture& row = *config_.architecture;
  const auto check_float = [&](const std::string& name, const std::vector<int64_t>& shape) {
    const StoredTensor& tensor = shape.empty() ? checkpoint_.tensor(name) : checkpoint_.tensor(name, shape);
    const std::optional<DType> dtype = parse_safetensors_dtype(tensor.dtype);
    if (!dtype || !is_float(*dtype)) {
      throw UnsupportedError(cat(checkpoint_.folder().string(), ": tensor '", name, "' is stored as ", tensor.dtype,
                                 "; weights in F32, F16 and BF16 are read"));
    }
  };
  const auto check_part = [&](const PartSpec& spec) {
    for (const std::string& name : spec.weights) check_float(name, stored_shape(checkpoint_, spec, name));
    if (!spec.bias.empty()) check_float(spec.bias, {bias_size(spec)});
  };
  check_float(tensor_name(config_, row.embedding), {config_.vocabulary, config_.hidden});
  if (!row.position_embedding.empty()) {
    check_float(tensor_name(config_, row.position_embedding),
                {config_.max_positions + row.position_offset, config_.hidden});
  }
  if (!row.embedding_norm.empty())
    check_part(norm_spec(config_, module_path(config_, row.embedding_norm), 1, config_.hidden));
  check_part(norm_spec(config_, module_path(config_, row.final_norm), 1, config_.hidden));
  const bool quantized_head = reader_ && !checkpoint_.has(head_tensor(config_));
  if (!quantized_head) check_float(head_tensor(config_), {config_.vocabulary, config_.hidden});
  if (config_.head_bias) check_float(config_.head + ".bias", {config_.vocabulary});
  for (int64_t block = 0; block < config_.blocks; ++block) {
    for (const PartSpec& part : part_specs(config_, block)) check_part(part);
    for (const auto& step : step_specs(config_, block)) {
      for (const LinearSpec& linear : step) {
        if (!reader_) check_float(linear.tensor, linear.shape);
        if (!linear.bias) continue;
        const bool has_own = linear.matrix_index < 0 || checkpoint_.has(linear.name + ".bias");
        has_own ? check_float(linear.name + ".bias", {linear.out_features})
                : check_float(linear.bias_tensor, linear.bias_shape);
      }
    }
  }
}

void Model::check_finite(const StoredTensor& tensor, ConstMatrixView values) const {
  refuse_nonfinite(checkpoint_, tensor, count_nonfinite(values));
}

StagedBlock Model::stage(int64_t index, const Loader& loader, bool use_reader) const {
  StagedBlock staged{.index = index};
  for (const PartSpec& spec : part_specs(config_, index))
    staged.parts[static_cast<size_t>(spec.part)] = loader.load(spec);
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
        auto weight = std::make_shared<Matrix>(loader.load_weight(spec));
        linear.weight = [weight](Backend& backend, DType dtype) { return place_matrix(*weight, backend, dtype); };
      }
      if (spec.bias) linear.bias = loader.load_bias(spec);
    }
  }
  return staged;
}

StagedBlock Model::stage_block(int64_t index, Memory& memory) const {
  return stage(index, {*this, memory}, static_cast<bool>(reader_));
}

StagedBlock Model::blank_block(int64_t index, Memory& memory) const {
  return stage(index, {*this, memory, false}, false);
}

Linear Model::place(const StagedBlock::StagedLinear& staged, Backend& backend) const {
  Linear linear{.name = staged.name, .weight = staged.weight(backend, dtype_)};
  if (!staged.bias.empty()) linear.bias = place_matrix(staged.bias, backend, dtype_);
  return linear;
}

Block Model::begin_block(const StagedBlock& staged, Backend& backend) const {
  Block block{.index = staged.index, .backend = &backend, .kinds = staged.kinds, .experts = staged.experts};
  for (size_t part = 0; part < kParts; ++part) block.parts[part] = place_part(staged.parts[part], backend);
  if (!config_.slopes.empty()) block.slopes = to_device(backend, DType::f32, 1, config_.heads, config_.slopes.data());
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

struct Model::HostRows {
  std::vector<int64_t> offsets;
  Matrix tokens, positions;  // [tokens, hidden], [longest sequence, hidden] in the stored dtype
};

Batch Model::embedded(HostRows rows, Backend& backend, const Loader& loader) const {
  const Architecture& row = *config_.architecture;
  Batch batch{.offsets = std::move(rows.offsets)};
  batch.residual = place_matrix(rows.tokens, backend, dtype_);
  if (config_.embedding_scale != 1) {
    // As in transformers, the factor is rounded to the dtype of the computation.
    Matrix factor(host_memory(), dtype_, 1, 1);
    reference(ops::Convert{.x = ConstMatrixView(&config_.embedding_scale, DType::f32, 1, 1), .y = factor});
    float rounded = 0;
    reference(ops::Convert{.x = factor, .y = MatrixView(&rounded, DType::f32, 1, 1)});
    Matrix scaled(backend, dtype_, batch.residual.rows(), batch.residual.cols());
    backend.run(ops::Clear{.y = scaled});
    backend.run(ops::Add{.x = batch.residual, .factor = rounded, .y = scaled});
    batch.residual = std::move(scaled);
  }
  if (!rows.positions.empty()) {
    const Matrix table = place_matrix(rows.positions, backend, dtype_);
    std::vector<int32_t> places(static_cast<size_t>(batch.tokens()));
    for (size_t s = 0; s + 1 < batch.offsets.size(); ++s)
      std::iota(places.begin() + batch.offsets[s], places.begin() + batch.offsets[s + 1], 0);
    Matrix positions(backend, dtype_, batch.tokens(), table.cols());
    backend.run(ops::GatherRows{.table = table, .ids = places, .y = positions});
    backend.run(ops::Add{.x = positions, .factor = 1, .y = batch.residual});
  }
  if (!row.embedding_norm.empty()) {
    const Affine norm = place_part(
        loader.load(norm_spec(config_, module_path(config_, row.embedding_norm), 1, config_.hidden)), backend);
    Matrix normed(backend, dtype_, batch.residual.rows(), batch.residual.cols());
    normalize(backend, batch.residual, norm, normed);
    batch.residual = std::move(normed);
  }
  if (const DType residual = backend.residual_dtype(dtype_); residual != dtype_) {
    Matrix converted(backend, residual, batch.residual.rows(), batch.residual.cols());
    backend.run(ops::Convert{.x = batch.residual, .y = converted});
    batch.residual = std::move(converted);
  }
  return batch;
}

Batch Model::embed(std::span<const std::vector<int32_t>> sequences, Backend& backend, ThreadPool* pool) const {
  const Architecture& row = *config_.architecture;
  std::vector<int64_t> offsets = {0};
  std::map<int32_t, std::vector<int64_t>> rows_of;  // positions of each id; sorted, so that the table is read in order
  int64_t longest = 0;
  const bool one_length = depends_on_length(config_);
  for (const std::vector<int32_t>& sequence : sequences) {
    if (one_length && sequence.size() != sequences[0].size()) {
      throw InputError(cat("sequences of ", sequences[0].size(), " and ", sequence.size(),
                           " tokens in one batch, but this model's rope depends on the length: group them by length"));
    }
    int64_t place = offsets.back();
    for (const int32_t id : sequence) {
      if (id < 0 || id >= config_.vocabulary) {
        throw InputError(cat("token id ", id, " lies outside the model's vocabulary of ", config_.vocabulary,
                             ": the text was tokenized for another model"));
      }
      rows_of[id].push_back(place++);
    }
    offsets.push_back(place);
    longest = std::max(longest, static_cast<int64_t>(sequence.size()));
  }
  if (!row.position_embedding.empty() && longest > config_.max_positions) {
    throw InputError(cat("a sequence of ", longest, " tokens, but this model has learned ", config_.max_positions,
                         " positions: use shorter sequences"));
  }
  const StoredTensor& table = checkpoint_.tensor(tensor_name(config_, row.embedding));
  const ConstMatrixView like = table.matrix();
  const size_t row_bytes = static_cast<size_t>(like.cols) * size_of(like.dtype);
  HostRows host{.offsets = offsets, .tokens = Matrix(backend.staging_memory(), like.dtype, offsets.back(), like.cols)};
  const std::vector<std::pair<int32_t, std::vector<int64_t>>> wanted(rows_of.begin(), rows_of.end());
  constexpr int64_t kTask = 256;  // rows per task
  std::atomic<int64_t> bad = 0;
  const auto read_some = [&](int64_t task) {
    const auto end = std::min<int64_t>(static_cast<int64_t>(wanted.size()), (task + 1) * kTask);
    for (int64_t w = task * kTask; w < end; ++w) {
      const auto& [id, places] = wanted[w];
      const MatrixView first = host.tokens.view().row_range(places[0], 1);
      checkpoint_.read(table, static_cast<size_t>(id) * row_bytes, row_bytes, first.data);
      bad += count_nonfinite(first);
      for (size_t i = 1; i < places.size(); ++i)
        std::memcpy(host.tokens.view().row_range(places[i], 1).data, first.data, row_bytes);
    }
  };
  const int64_t tasks = (static_cast<int64_t>(wanted.size()) + kTask - 1) / kTask;
  if (pool != nullptr) {
    pool->for_each(tasks, read_some);
  } else {
    for (int64_t task = 0; task < tasks; ++task) read_some(task);
  }
  refuse_nonfinite(checkpoint_, table, bad);
  if (!row.position_embedding.empty()) {
    const StoredTensor& learned = checkpoint_.tensor(tensor_name(config_, row.position_embedding));
    const size_t bytes = static_cast<size_t>(config_.hidden) * size_of(learned.matrix().dtype);
    host.positions = Matrix(backend.staging_memory(), learned.matrix().dtype, longest, config_.hidden);
    checkpoint_.read(learned, static_cast<size_t>(row.position_offset) * bytes, host.positions.bytes(),
                     host.positions.view().data);
    check_finite(learned, host.positions);
  }
  return embedded(std::move(host), backend, {*this, host_memory()});
}

Batch Model::blank_batch(std::vector<int64_t> offsets, Backend& backend, Memory& host) const {
  const Architecture& row = *config_.architecture;
  const auto rows = [&](std::string_view module, int64_t count) {
    return Matrix(host, checkpoint_.tensor(tensor_name(config_, module)).matrix().dtype, count, config_.hidden);
  };
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) longest = std::max(longest, offsets[s + 1] - offsets[s]);
  HostRows blank{.offsets = std::move(offsets)};
  blank.tokens = rows(row.embedding, blank.offsets.back());
  if (!row.position_embedding.empty()) blank.positions = rows(row.position_embedding, longest);
  return embedded(std::move(blank), backend, {*this, host, false});
}

void Model::set_blank_head() {
  const ConstMatrixView like = checkpoint_.tensor(head_tensor(config_)).matrix();
  final_norm_.weight = Matrix(*head_backend_, DType::f32, 1, config_.hidden);
  if (config_.norm_bias) final_norm_.bias = Matrix(*head_backend_, DType::f32, 1, config_.hidden);
  head_ = Matrix(*head_backend_, like.dtype, like.rows, like.cols);
  if (config_.head_bias) head_bias_ = Matrix(*head_backend_, DType::f32, 1, config_.vocabulary);
}

// Reads, checks and uploads the head in parts, as it is large.
const Matrix& Model::head() {
  if (!head_.empty()) return head_;
  if (config_.head_bias) {
    const StoredTensor& tensor = checkpoint_.tensor(config_.head + ".bias", {config_.vocabulary});
    const Matrix stored = checkpoint_.load(tensor);
    check_finite(tensor, stored);
    head_bias_ = place_matrix(stored, *head_backend_, DType::f32);
  }
  if (reader_ && !config_.tied_embeddings) {
    if (const PlaceWeight place = reader_(head_spec(config_))) return head_ = place(*head_backend_, dtype_);
  }
  constexpr int64_t kPart = int64_t{32} << 20;
  const StoredTensor& tensor = checkpoint_.tensor(head_tensor(config_));
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
    if (config_.unit_head) scale_rows_to_one(part);
    head_backend_->upload(head.view().row_range(first, count), part.view().data);
  }
  refuse_nonfinite(checkpoint_, tensor, bad);
  return head_ = std::move(head);
}

const Affine& Model::final_norm() {
  if (!final_norm_.weight.empty()) return final_norm_;
  PartSpec spec = norm_spec(config_, module_path(config_, config_.architecture->final_norm), 1, config_.hidden);
  spec.scale = config_.logit_scale;
  return final_norm_ = place_part(Loader{*this, host_memory()}.load(spec), *head_backend_);
}

Matrix Model::take_head() {
  head();
  if (head_.dtype() == dtype_) return std::move(head_);
  Matrix converted(*head_backend_, dtype_, head_.rows(), head_.cols());
  head_backend_->run(ops::Convert{.x = head_, .y = converted});
  head_ = Matrix();
  return converted;
}

}  // namespace gptq
