#include "model/embedding.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "model/altup.h"
#include "model/norm.h"
#include "model/tensor_checks.h"
#include "model/tensor_reader.h"
#include "tensor/nonfinite.h"

namespace gptq {
namespace {

// Where the tokens of a batch come from and go to.
struct TokenRows {
  std::vector<int64_t> offsets = {0};
  int64_t longest = 0;                              // sequence
  std::map<int32_t, std::vector<int64_t>> rows_of;  // of each id; sorted, so that the table is read in order
};

// first: the position of the first token.
TokenRows token_rows(const ModelConfig& config, std::span<const std::vector<int32_t>> sequences, int64_t first) {
  TokenRows found;
  const bool one_length = depends_on_length(config);
  for (const std::vector<int32_t>& sequence : sequences) {
    if (one_length && sequence.size() != sequences[0].size()) {
      throw InputError(cat("sequences of ", sequences[0].size(), " and ", sequence.size(),
                           " tokens in one batch, but this model's rope depends on the length: group them by length"));
    }
    int64_t place = found.offsets.back();
    for (const int32_t id : sequence) {
      if (id < 0 || id >= config.vocabulary) {
        throw InputError(cat("token id ", id, " lies outside the model's vocabulary of ", config.vocabulary,
                             ": the text was tokenized for another model"));
      }
      found.rows_of[id].push_back(place++);
    }
    found.offsets.push_back(place);
    found.longest = std::max(found.longest, static_cast<int64_t>(sequence.size()));
  }
  const int64_t length = first + found.longest;
  if (!config.architecture->position_embedding.empty() && length > config.max_positions) {
    throw InputError(cat("a sequence of ", length, " tokens, but this model has learned ", config.max_positions,
                         " positions: use shorter sequences"));
  }
  if (config.dense_tokens > 0 && length > config.dense_tokens) {
    throw UnsupportedError(cat("a sequence of ", length, " tokens, but beyond ", config.dense_tokens,
                               " tokens this model attends to some of them only, which is not computed: use "
                               "sequences of at most ",
                               config.dense_tokens, " tokens"));
  }
  return found;
}

// Reads each id's row of the table and copies it to all of its rows in `tokens`.
void read_tokens(const Checkpoint& checkpoint, const StoredTensor& table,
                 const std::map<int32_t, std::vector<int64_t>>& rows_of, MatrixView tokens, ThreadPool* pool) {
  const size_t row_bytes = static_cast<size_t>(tokens.cols) * size_of(tokens.dtype);
  const std::vector<std::pair<int32_t, std::vector<int64_t>>> wanted(rows_of.begin(), rows_of.end());
  constexpr int64_t kTask = 256;  // rows per task
  std::atomic<int64_t> bad = 0;
  const auto read_some = [&](int64_t task) {
    const auto end = std::min<int64_t>(static_cast<int64_t>(wanted.size()), (task + 1) * kTask);
    for (int64_t w = task * kTask; w < end; ++w) {
      const auto& [id, places] = wanted[w];
      const MatrixView first = tokens.row_range(places[0], 1);
      checkpoint.read(table, static_cast<size_t>(id) * row_bytes, row_bytes, first.data);
      bad += count_nonfinite(first);
      for (size_t i = 1; i < places.size(); ++i)
        std::memcpy(tokens.row_range(places[i], 1).data, first.data, row_bytes);
    }
  };
  const int64_t tasks = (static_cast<int64_t>(wanted.size()) + kTask - 1) / kTask;
  if (pool != nullptr) {
    pool->for_each(tasks, read_some);
  } else {
    for (int64_t task = 0; task < tasks; ++task) read_some(task);
  }
  refuse_nonfinite(checkpoint, table, bad);
}

// The same rows, with those of ids that a table of `vocabulary` rows lacks at its first.
std::map<int32_t, std::vector<int64_t>> within(int64_t vocabulary,
                                               const std::map<int32_t, std::vector<int64_t>>& rows_of) {
  std::map<int32_t, std::vector<int64_t>> known;
  for (const auto& [id, rows] : rows_of) {
    std::vector<int64_t>& to = known[id < vocabulary ? id : 0];
    to.insert(to.end(), rows.begin(), rows.end());
  }
  return known;
}

// Rounded to `dtype`.
float rounded(float value, DType dtype) {
  Matrix narrow(host_memory(), dtype, 1, 1);
  reference(ops::Convert{.x = ConstMatrixView(&value, DType::f32, 1, 1), .y = narrow});
  float result = 0;
  reference(ops::Convert{.x = narrow, .y = MatrixView(&result, DType::f32, 1, 1)});
  return result;
}

}  // namespace

Batch Embedding::embed(std::span<const std::vector<int32_t>> sequences, Backend& backend, ThreadPool* pool,
                       Cache* cache) const {
  const Architecture& row = *config_.architecture;
  const int64_t first = cache == nullptr ? 0 : cache->tokens;
  const TokenRows wanted = token_rows(config_, sequences, first);
  const StoredTensor& table = checkpoint_.tensor(embedding_tensor(config_));
  const ConstMatrixView like = table.matrix();
  Memory& staging = backend.staging_memory();
  HostRows host{.offsets = wanted.offsets, .tokens = Matrix(staging, like.dtype, wanted.offsets.back(), like.cols)};
  read_tokens(checkpoint_, table, wanted.rows_of, host.tokens, pool);
  if (config_.per_block > 0) {
    const ConstMatrixView like_own = per_block_table().matrix();
    host.per_block = Matrix(staging, like_own.dtype, wanted.offsets.back(), like_own.cols);
    read_tokens(checkpoint_, per_block_table(), within(config_.per_block_vocabulary, wanted.rows_of), host.per_block,
                pool);
  }
  if (!row.position_embedding.empty()) host.positions = read_positions(first, wanted.longest, staging);
  if (row.positions == Positions::sinusoidal) host.positions = sinusoids(first, wanted.longest, staging);
  Batch batch = embedded(std::move(host), backend, {checkpoint_, host_memory()});
  batch.cache = cache;
  return batch;
}

// Rows [first, first + count) of the table of learned positions.
Matrix Embedding::read_positions(int64_t first, int64_t count, Memory& memory) const {
  const Architecture& row = *config_.architecture;
  const StoredTensor& learned = checkpoint_.tensor(tensor_name(config_, row.position_embedding));
  const size_t bytes = static_cast<size_t>(config_.hidden) * size_of(learned.matrix().dtype);
  Matrix positions(memory, learned.matrix().dtype, count, config_.hidden);
  checkpoint_.read(learned, static_cast<size_t>(row.position_offset + first) * bytes, positions.bytes(),
                   positions.view().data);
  check_finite(checkpoint_, learned, positions);
  return positions;
}

// sin and cos of each position times 10000^(-i / (hidden / 2 - 1)), in halves as in fairseq.
Matrix Embedding::sinusoids(int64_t first, int64_t count, Memory& memory) const {
  Matrix positions(memory, DType::f32, count, config_.hidden);
  reference(ops::Clear{.y = positions});
  const int64_t half = config_.hidden / 2;
  const float step = static_cast<float>(std::log(10000.0) / static_cast<double>(std::max<int64_t>(half - 1, 1)));
  for (int64_t row = 0; row < count; ++row) {
    const auto place = static_cast<float>(first + row + config_.architecture->position_offset);
    float* values = positions.row<float>(row);
    for (int64_t i = 0; i < half; ++i) {
      const float angle = place * std::exp(static_cast<float>(i) * -step);
      values[i] = std::sin(angle);
      values[half + i] = std::cos(angle);
    }
  }
  return positions;
}

Batch Embedding::blank_batch(std::vector<int64_t> offsets, Backend& backend, Memory& host) const {
  const Architecture& row = *config_.architecture;
  const auto rows = [&](const std::string& table, int64_t count) {
    return Matrix(host, checkpoint_.tensor(table).matrix().dtype, count, config_.hidden);
  };
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) longest = std::max(longest, offsets[s + 1] - offsets[s]);
  HostRows blank{.offsets = std::move(offsets)};
  blank.tokens = rows(embedding_tensor(config_), blank.offsets.back());
  if (config_.per_block > 0) {
    const ConstMatrixView like = per_block_table().matrix();
    blank.per_block = Matrix(host, like.dtype, blank.offsets.back(), like.cols);
  }
  if (!row.position_embedding.empty()) blank.positions = rows(tensor_name(config_, row.position_embedding), longest);
  if (row.positions == Positions::sinusoidal) blank.positions = Matrix(host, DType::f32, longest, config_.hidden);
  return embedded(std::move(blank), backend, {checkpoint_, host, false});
}

Batch Embedding::embedded(HostRows rows, Backend& backend, const TensorReader& tensors) const {
  const Architecture& row = *config_.architecture;
  Batch batch{.offsets = std::move(rows.offsets)};
  batch.residual = place_matrix(rows.tokens, backend, dtype_);
  if (config_.embedding_scale != 1) batch.residual = scaled(backend, batch.residual, config_.embedding_scale);
  if (!rows.positions.empty()) add_positions(backend, rows.positions, batch);
  if (!row.embedding_norm.empty()) {
    const PartSpec spec = norm_spec(config_, module_path(config_, row.embedding_norm), 1, config_.hidden);
    const Affine norm = place_part(tensors.read_part(spec), backend);
    Matrix normed(backend, dtype_, batch.residual.rows(), batch.residual.cols());
    normalize(backend, config_, batch.residual, norm, normed);
    batch.residual = std::move(normed);
  }
  const DType residual = backend.residual_dtype(dtype_);
  if (residual != dtype_ || config_.state_width != config_.hidden) {
    Matrix state(backend, residual, batch.residual.rows(), config_.state_width);
    if (config_.state_width != config_.hidden) backend.run(ops::Clear{.y = state});
    backend.run(ops::Convert{.x = batch.residual, .y = state.view().col_range(0, config_.hidden)});
    const Matrix embedded = std::exchange(batch.residual, std::move(state));
    if (config_.per_block > 0) add_per_block(backend, embedded, rows.per_block, tensors, batch);
    if (config_.residuals > 1) {
      std::vector<Affine> projections;
      for (const PartSpec& spec : altup_projections(config_, row.altup.projections))
        projections.push_back(place_part(tensors.read_part(spec), backend));
      AltUp(config_).embed(backend, projections, batch);
    }
  }
  return batch;
}

const StoredTensor& Embedding::per_block_table() const {
  return checkpoint_.tensor(tensor_name(config_, config_.architecture->per_block.embedding));
}

// As in transformers, the factor is rounded to the dtype of the computation.
Matrix Embedding::scaled(Backend& backend, ConstMatrixView x, float factor) const {
  Matrix result(backend, dtype_, x.rows, x.cols);
  backend.run(ops::Clear{.y = result});
  backend.run(ops::Add{.x = x, .factor = rounded(factor, dtype_), .y = result});
  return result;
}

// Writes (norm(projection of x) + the tokens' rows of the second table) / sqrt(2) to the state.
void Embedding::add_per_block(Backend& backend, ConstMatrixView x, ConstMatrixView rows, const TensorReader& tensors,
                              Batch& batch) const {
  const PerBlockRow& row = config_.architecture->per_block;
  const int64_t width = config_.blocks * config_.per_block;
  const PartSpec weights{.weights = {tensor_name(config_, row.projection)}, .rows = width, .cols = config_.hidden};
  const Affine projection = place_part(tensors.read_part(weights), backend),
               norm = place_part(tensors.read_part(norm_spec(config_, module_path(config_, row.projection_norm), 1,
                                                             config_.per_block)),
                                 backend);
  Matrix projected(backend, dtype_, x.rows, width), normed(backend, dtype_, x.rows, width);
  backend.run(ops::Linear{.x = x, .w = projection.weight, .bias = {}, .y = projected});
  const auto root = [](int64_t size) { return std::sqrt(static_cast<float>(size)); };
  projected = scaled(backend, projected, 1 / root(config_.hidden));
  normalize(backend, config_, projected, norm, normed);
  const Matrix own = scaled(backend, place_matrix(rows, backend, dtype_), root(config_.per_block));
  backend.run(ops::Add{.x = own, .factor = 1, .y = normed});
  const Matrix sum = scaled(backend, normed, std::sqrt(0.5F));
  backend.run(ops::Convert{.x = sum, .y = batch.residual.view().col_range(config_.hidden, width)});
}

void Embedding::add_positions(Backend& backend, ConstMatrixView rows, Batch& batch) const {
  const Matrix table = place_matrix(rows, backend, dtype_);
  std::vector<int32_t> places(static_cast<size_t>(batch.tokens()));
  for (size_t s = 0; s + 1 < batch.offsets.size(); ++s)
    std::iota(places.begin() + batch.offsets[s], places.begin() + batch.offsets[s + 1], 0);
  Matrix positions(backend, dtype_, batch.tokens(), table.cols());
  backend.run(ops::GatherRows{.table = table, .ids = places, .y = positions});
  backend.run(ops::Add{.x = positions, .factor = 1, .y = batch.residual});
}

}  // namespace gptq
