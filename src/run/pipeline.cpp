#include "run/pipeline.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/resources.h"
#include "quant/recipe.h"

namespace gptq {
namespace {

// Tokens of one batch: enough for matrix products at full speed, few enough for small temporaries.
constexpr int64_t kBatchTokens = 2048;

// "model.layers.3.self_attn.q_proj" -> "self_attn.q_proj"
std::string name_in_block(const ModelConfig& config, const std::string& name) {
  const size_t index = config.architecture->blocks.size() + 1;
  return name.substr(name.find('.', index) + 1);
}

std::string short_names(const std::vector<LinearSpec>& linears) {
  std::string names;
  for (const LinearSpec& linear : linears)
    names += (names.empty() ? "" : ",") + linear.name.substr(linear.name.rfind('.') + 1);
  return names;
}

// The arithmetic of the job, in multiply-adds, for the share done and the time left.
struct Work {
  double total = 0, done = 0;

  static double sweep(const std::vector<LinearSpec>& step, int64_t tokens) {  // forward and Hessian
    double per_token = 0.5 * static_cast<double>(step[0].in_features * step[0].in_features);
    for (const LinearSpec& linear : step) per_token += static_cast<double>(linear.in_features * linear.out_features);
    return per_token * static_cast<double>(tokens);
  }
  static double solve(
      const LinearSpec& linear) {  // W R and its feedback, the search, and the factor shared out roughly
    const auto n = static_cast<double>(linear.in_features), rows = static_cast<double>(linear.out_features);
    return rows * n * (n + 200) + n * n * n / 6;
  }
};

class Quantizer {
 public:
  Quantizer(const Job& job, const ProgressFunction& progress) : job_(job), progress_(progress) {}
  Report run();

 private:
  void open();
  void plan_output();
  void read_calibration_data();
  void carry_over();
  void quantize_block(int64_t index);
  void sweep_sequential(Block& block, const std::vector<std::vector<LinearSpec>>& specs);
  void sweep_at_once(Block& block, const std::vector<std::vector<LinearSpec>>& specs);
  void solve_step(Step& step, const std::vector<LinearSpec>& specs, Hessian& hessian);
  void keep(Linear& linear, const Quantized& quantized, double damp_percent, int64_t dead);
  bool any_selected(const std::vector<LinearSpec>& specs) const;

  void tell(Progress::Kind kind, std::string text);
  void step_done(const std::vector<LinearSpec>& specs, double work);
  void check_stop() const {
    if (job_.stop.stop_requested()) throw Cancelled();
  }
  // Adds the time of `body` to a stage of the report.
  template <typename Body>
  auto timed(const char* stage, Body body) {
    const Stopwatch watch;
    struct Add {
      const Stopwatch& watch;
      double& seconds;
      ~Add() { seconds += watch.seconds(); }
    } add{watch, stages_[stage]};
    return body();
  }

  const Job& job_;
  const ProgressFunction& progress_;
  Stopwatch watch_;
  double cpu_at_start_ = cpu_seconds();
  Report report_;
  std::map<std::string, double> stages_;
  Work work_;
  int64_t block_ = 0, tokens_ = 0;
  double last_loss_ = 0;

  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<CheckpointWriter> writer_;
  std::map<std::string, LinearSpec> quantized_;  // what is quantized, by the name of its weight
  std::vector<Batch> batches_;
};

void Quantizer::tell(Progress::Kind kind, std::string text) {
  if (kind == Progress::Kind::warning) report_.warnings.push_back(text);
  if (progress_) progress_({.kind = kind, .text = std::move(text)});
}

void Quantizer::step_done(const std::vector<LinearSpec>& specs, double work) {
  check_stop();
  work_.done += work;
  if (!progress_) return;
  Progress progress{.text = short_names(specs), .block = block_, .blocks = model_->config().blocks, .loss = last_loss_};
  progress.fraction = std::min(1.0, work_.done / work_.total);
  progress.seconds = watch_.seconds();
  progress.remaining_seconds = progress.fraction > 0 ? progress.seconds * (1 / progress.fraction - 1) : 0;
  progress.tokens_per_second = progress.fraction * static_cast<double>(tokens_ * progress.blocks) / progress.seconds;
  progress.memory_bytes = resident_bytes();
  progress_(progress);
}

bool Quantizer::any_selected(const std::vector<LinearSpec>& specs) const {
  return std::any_of(specs.begin(), specs.end(),
                     [&](const LinearSpec& linear) { return is_selected(job_.recipe, linear); });
}

void Quantizer::open() {
  validate(job_.recipe);
  if (job_.batch_size < 0)
    throw InputError(cat("--batch-size ", job_.batch_size, ": give a positive number of sequences, or 0 to choose"));
  if (job_.max_shard_bytes <= 0) throw InputError("--max-shard-size: give a positive size, such as 5GB");
  checkpoint_ = std::make_unique<Checkpoint>(job_.model);
  if (!checkpoint_->quantization_config().is_null()) {
    throw InputError(cat(job_.model, ": its weights are already quantized; give the unquantized model"));
  }
  backend_ = open_backend("cpu", {.threads = job_.threads});
  const StoredTensor* first_float = nullptr;
  for (const StoredTensor* tensor : checkpoint_->tensors()) {
    if (first_float == nullptr && tensor->shape.size() == 2) first_float = tensor;
  }
  const DType stored =
      first_float != nullptr ? parse_safetensors_dtype(first_float->dtype).value_or(DType::f32) : DType::f32;
  const DType computed = backend_->compute_dtype(stored);
  model_ = std::make_unique<Model>(*checkpoint_, *backend_, computed);
  report_.device = backend_->description();
  report_.compute_dtype = name_of(computed);
  tell(Progress::Kind::message, cat("device: ", report_.device));
  tell(Progress::Kind::message,
       computed == stored ? cat("precision: ", name_of(computed), ", as stored")
                          : cat("precision: stored as ", name_of(stored), ", computed in ", name_of(computed),
                                ", which holds every stored value exactly and is the faster one on this device"));
}

void Quantizer::plan_output() {
  const ModelConfig& config = model_->config();
  std::set<std::string> wanted, known;
  for (const auto& names : job_.recipe.modules_in_block_to_quantize) wanted.insert(names.begin(), names.end());
  for (int64_t block = 0; block < config.blocks; ++block) {
    for (const auto& step : step_specs(config, block)) {
      for (const LinearSpec& linear : step) {
        known.insert(name_in_block(config, linear.name));
        if (!is_selected(job_.recipe, linear)) continue;
        check_shape(linear, job_.recipe);
        quantized_.emplace(linear.name + ".weight", linear);
        report_.quantized_weights += linear.in_features * linear.out_features;
      }
    }
  }
  for (const std::string& name : wanted) {
    if (known.count(name) != 0) continue;
    std::string names;
    for (const std::string& other : known) names += (names.empty() ? "" : ", ") + other;
    throw InputError(cat("--modules-in-block-to-quantize ", name, ": a block of this model has ", names));
  }

  std::vector<TensorSpec> tensors;
  int64_t quantized_bytes = 0;
  for (const StoredTensor* tensor : checkpoint_->tensors()) {
    const auto found = quantized_.find(tensor->name);
    if (found == quantized_.end()) {
      tensors.push_back({tensor->name, tensor->dtype, tensor->shape});
      continue;
    }
    for (TensorSpec& spec : quantized_tensors(found->second, job_.recipe)) {
      quantized_bytes += static_cast<int64_t>(spec.bytes());
      tensors.push_back(std::move(spec));
    }
  }
  report_.bits_per_weight =
      8.0 * static_cast<double>(quantized_bytes) / static_cast<double>(std::max<int64_t>(report_.quantized_weights, 1));
  writer_ = std::make_unique<CheckpointWriter>(checkpoint_->folder(), job_.output, job_.overwrite, std::move(tensors),
                                               static_cast<size_t>(job_.max_shard_bytes));
}

void Quantizer::read_calibration_data() {
  Calibration calibration = job_.calibration;
  const std::filesystem::path beside =
      std::filesystem::absolute(checkpoint_->folder()).lexically_normal() / "../calibration.txt";
  if (calibration.samples <= 0)
    throw InputError(cat("--samples ", calibration.samples, ": give a positive number of sequences"));
  if (calibration.sequence_length <= 0) {
    throw InputError(cat("--sequence-length ", calibration.sequence_length, ": give a positive number of tokens"));
  }
  if (calibration.file.empty() && std::filesystem::exists(beside))
    calibration.file = beside.lexically_normal().string();
  if (calibration.file.empty()) {
    throw InputError(
        "no calibration text: pass --calibration FILE (.txt, or .jsonl with text, messages or input_ids), or --method "
        "rtn, which needs none");
  }
  const int64_t positions = model_->config().max_positions;
  if (calibration.sequence_length > positions) {
    tell(Progress::Kind::message,
         cat("calibration: sequences of ", positions, " tokens, as many as the model has positions, instead of ",
             calibration.sequence_length));
    calibration.sequence_length = positions;
  }
  std::unique_ptr<Tokenizer> tokenizer;
  const TextSource source{calibration.file, [&]() -> const Tokenizer& {
                            if (!tokenizer) tokenizer = std::make_unique<Tokenizer>(checkpoint_->folder());
                            return *tokenizer;
                          }};
  const std::vector<TokenSequence> sequences =
      read_calibration(source, {calibration.samples, calibration.sequence_length, calibration.seed});
  report_.sequences = static_cast<int64_t>(sequences.size());
  for (const TokenSequence& sequence : sequences) tokens_ += static_cast<int64_t>(sequence.size());
  report_.tokens = tokens_;
  if (report_.sequences < calibration.samples) {
    tell(Progress::Kind::warning, cat("calibration: ", calibration.file, " gives ", report_.sequences, " sequences (",
                                      tokens_, " tokens), fewer than the ", calibration.samples, " of --samples"));
  }
  tell(Progress::Kind::message,
       cat("calibration: ", report_.sequences, " sequences, ", tokens_, " tokens of ", calibration.file));
  for (const auto& sequences_of_batch : make_batches(sequences, job_.batch_size))
    batches_.push_back(model_->embed(sequences_of_batch));
}

void Quantizer::carry_over() {
  for (const StoredTensor* tensor : checkpoint_->tensors()) {
    if (quantized_.count(tensor->name) != 0) continue;
    writer_->write(tensor->name, tensor->data, tensor->bytes);
    checkpoint_->forget(*tensor);
    check_stop();
  }
  for (const auto& file : checkpoint_->side_files()) writer_->copy_file(checkpoint_->folder() / file, file);
  const Json quantization = quantization_config(job_.recipe);
  Json model_config = checkpoint_->config();
  model_config["quantization_config"] = quantization;
  writer_->write_file("config.json", model_config.dump(2) + "\n");
  writer_->write_file("quantize_config.json", quantization.dump(2) + "\n");
}

void Quantizer::keep(Linear& linear, const Quantized& quantized, double damp_percent, int64_t dead) {
  timed("pack and write",
        [&] { write_linear(*writer_, linear.name, pack(*backend_, quantized, resolved_format(job_.recipe))); });
  dequantize(*backend_, quantized, linear.weight);
  last_loss_ = quantized.loss;
  report_.linears.push_back({linear.name, linear.weight.rows(), linear.weight.cols(), quantized.bits,
                             quantized.group_size, quantized.loss, quantized.error, damp_percent, dead});
}

void Quantizer::solve_step(Step& step, const std::vector<LinearSpec>& specs, Hessian& hessian) {
  const std::string name = specs[0].name;
  report_.dropped_rows += hessian.dropped();
  const FactoredHessian factored = timed("factorization", [&] { return hessian.factor(job_.recipe, name); });
  if (factored.damp_percent > job_.recipe.damp_percent) {
    tell(Progress::Kind::warning,
         cat(name, ": its Hessian needed damping ", factored.damp_percent, " instead of ", job_.recipe.damp_percent));
  }
  double work = 0;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (!is_selected(job_.recipe, specs[i])) continue;
    check_stop();
    Linear& linear = step.linears[i];
    const Quantized quantized =
        timed("columns", [&] { return solve(*backend_, linear.weight, factored, job_.recipe); });
    keep(linear, quantized, factored.damp_percent, static_cast<int64_t>(factored.dead.size()));
    work += Work::solve(specs[i]);
  }
  step_done(specs, work);
}

// One pass: a step's Hessian sees the inputs that the already quantized steps before it produce.
void Quantizer::sweep_sequential(Block& block, const std::vector<std::vector<LinearSpec>>& specs) {
  for (size_t s = 0; s < specs.size(); ++s) {
    const bool selected = any_selected(specs[s]);
    Hessian hessian(*backend_, selected ? specs[s][0].in_features : 0);
    for (Batch& batch : batches_) {
      const ConstMatrixView x =
          timed("forward", [&] { return model_->advance(block, static_cast<int64_t>(s), batch); });
      if (selected) timed("Hessian", [&] { hessian.add(x); });
      step_done(specs[s], Work::sweep(specs[s], batch.tokens()));
    }
    if (selected) solve_step(block.steps[s], specs[s], hessian);
  }
  if (block.index + 1 == model_->config().blocks) return;  // nothing reads the last block's output
  for (Batch& batch : batches_) {
    timed("forward", [&] { model_->finish(block, batch); });
    check_stop();
  }
}

// Without true_sequential: all Hessians from one pass through the unquantized block, then a pass through the quantized
// one.
void Quantizer::sweep_at_once(Block& block, const std::vector<std::vector<LinearSpec>>& specs) {
  std::vector<Hessian> hessians;
  for (const auto& step : specs) hessians.emplace_back(*backend_, step[0].in_features);
  for (const Batch& batch : batches_) {
    Batch copy{
        batch.offsets, Matrix(*backend_, batch.residual.dtype(), batch.residual.rows(), batch.residual.cols()), {}};
    backend_->convert(batch.residual, copy.residual);
    for (size_t s = 0; s < specs.size(); ++s) {
      const ConstMatrixView x = timed("forward", [&] { return model_->advance(block, static_cast<int64_t>(s), copy); });
      timed("Hessian", [&] { hessians[s].add(x); });
      step_done(specs[s], Work::sweep(specs[s], batch.tokens()));
    }
  }
  for (size_t s = 0; s < specs.size(); ++s) {
    if (any_selected(specs[s])) solve_step(block.steps[s], specs[s], hessians[s]);
  }
  if (block.index + 1 == model_->config().blocks) return;
  for (Batch& batch : batches_) {
    timed("forward", [&] { model_->forward(block, batch); });
    check_stop();
  }
}

void Quantizer::quantize_block(int64_t index) {
  block_ = index;
  check_stop();
  Block block = timed("read", [&] { return model_->load_block(index); });
  const std::vector<std::vector<LinearSpec>> specs = step_specs(model_->config(), index);
  if (job_.recipe.method == Method::gptq) {
    job_.recipe.true_sequential ? sweep_sequential(block, specs) : sweep_at_once(block, specs);
    return;
  }
  for (size_t s = 0; s < specs.size(); ++s) {
    double work = 0;
    for (size_t i = 0; i < specs[s].size(); ++i) {
      if (!is_selected(job_.recipe, specs[s][i])) continue;
      Linear& linear = block.steps[s].linears[i];
      keep(linear, timed("columns", [&] { return round_to_nearest(*backend_, linear.weight, job_.recipe); }), 0, 0);
      work += Work::solve(specs[s][i]);
    }
    step_done(specs[s], work);
  }
}

Report Quantizer::run() {
  report_.model = job_.model;
  report_.output = job_.output;
  report_.recipe = job_.recipe;
  report_.checkpoint_format = name_of(resolved_format(job_.recipe));
  open();
  plan_output();
  if (job_.recipe.method == Method::gptq) timed("calibration", [&] { read_calibration_data(); });
  timed("pack and write", [&] { carry_over(); });

  const int64_t blocks = model_->config().blocks;
  for (const auto& step : step_specs(model_->config(), 0)) {
    if (job_.recipe.method == Method::gptq) work_.total += static_cast<double>(blocks) * Work::sweep(step, tokens_);
    for (const LinearSpec& linear : step) {
      if (is_selected(job_.recipe, linear)) work_.total += static_cast<double>(blocks) * Work::solve(linear);
    }
  }
  for (int64_t block = 0; block < blocks; ++block) {
    quantize_block(block);
    backend_->trim();
  }
  timed("pack and write", [&] { writer_->commit(); });

  report_.source_bytes = static_cast<int64_t>(checkpoint_->bytes());
  report_.output_bytes = static_cast<int64_t>(writer_->output_bytes());
  if (report_.dropped_rows > 0) {
    tell(Progress::Kind::warning,
         cat(report_.dropped_rows, " calibration rows held NaN or infinity and were left out of the Hessians"));
  }
  for (const auto& [op, count] : backend_->fallbacks()) report_.fallbacks.emplace_back(op, count);
  for (const auto& [stage, seconds] : stages_) report_.stage_seconds.emplace_back(stage, seconds);
  report_.seconds = watch_.seconds();
  report_.cpu_seconds = cpu_seconds() - cpu_at_start_;
  report_.peak_memory_bytes = peak_resident_bytes();
  return std::move(report_);
}

}  // namespace

std::vector<std::vector<TokenSequence>> make_batches(const std::vector<TokenSequence>& sequences, int64_t batch_size) {
  std::vector<std::vector<TokenSequence>> batches;
  for (const TokenSequence& sequence : sequences) {
    const auto length = static_cast<int64_t>(sequence.size());
    const int64_t limit =
        batch_size > 0 ? batch_size : std::max<int64_t>(1, kBatchTokens / std::max<int64_t>(length, 1));
    const bool fits = !batches.empty() && batches.back()[0].size() == sequence.size() &&
                      static_cast<int64_t>(batches.back().size()) < limit;
    if (!fits) batches.emplace_back();
    batches.back().push_back(sequence);
  }
  return batches;
}

bool is_selected(const Recipe& recipe, const LinearSpec& linear) {
  if (recipe.modules_in_block_to_quantize.empty()) return true;
  for (const auto& names : recipe.modules_in_block_to_quantize) {
    for (const std::string& name : names) {
      if (linear.name.size() > name.size() && linear.name.ends_with("." + name)) return true;
    }
  }
  return false;
}

void remove_partial_output(const std::string& output) { CheckpointWriter::remove_partial(output); }

Report quantize(const Job& job, const ProgressFunction& progress) { return Quantizer(job, progress).run(); }

}  // namespace gptq
