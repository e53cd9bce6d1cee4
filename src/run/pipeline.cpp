// quantize(): setup and plan, then one block after the other, the next one read ahead and finished linears packed and
// written behind.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <utility>

#include "base/background.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/resources.h"
#include "quant/format.h"
#include "quant/recipe.h"
#include "run/bit_probes.h"
#include "run/block_quantizer.h"
#include "run/mixed_bits.h"
#include "run/plan.h"
#include "run/work.h"

namespace gptq {
namespace {

// What is left when the last block is done: writing to the disk.
constexpr const char* kCommitStage = "commit";
constexpr const char* kEmbeddingStage = "embedding";

std::string short_names(const std::vector<LinearSpec>& linears) {
  std::string names;
  if (linears[0].expert >= 0) names = cat("expert ", linears[0].expert, " ");
  for (const LinearSpec& linear : linears)
    names += (names.empty() || names.back() == ' ' ? "" : ",") + linear.name.substr(linear.name.rfind('.') + 1);
  return names;
}

LinearReport::Scales scales_of(const FetchedLinear& linear) {
  const Matrix& scales = linear.scales;
  std::vector<float> magnitudes(scales.row<float>(0), scales.row<float>(0) + scales.view().size());
  if (magnitudes.empty()) return {};
  const auto negative = std::count_if(magnitudes.begin(), magnitudes.end(), [](float scale) { return scale < 0; });
  for (float& scale : magnitudes) scale = std::abs(scale);
  const auto middle = magnitudes.begin() + static_cast<std::ptrdiff_t>(magnitudes.size() / 2);
  std::nth_element(magnitudes.begin(), middle, magnitudes.end());
  const auto [least, largest] = std::minmax_element(magnitudes.begin(), magnitudes.end());
  return {*least, *middle, *largest, static_cast<double>(negative) / static_cast<double>(magnitudes.size())};
}

class Quantizer final : public BlockObserver {
 public:
  Quantizer(Job job, const ProgressFunction& progress) : job_(std::move(job)), progress_(progress) {}
  ~Quantizer() override {
    ended_ = true;
    set_reading(false);
  }
  Quantizer(const Quantizer&) = delete;
  Quantizer& operator=(const Quantizer&) = delete;
  Report run();

  void begin_stage(const char* stage) override;
  void end_stage() override;
  void begin_step(const std::vector<LinearSpec>& step) override { step_ = short_names(step); }
  void swept(const std::vector<LinearSpec>& step, int64_t tokens) override;
  void solved_step(const std::vector<LinearSpec>& step, int64_t dropped_rows) override;
  void worked(double multiply_adds) override { step_done(multiply_adds); }
  void solved(const LinearSpec& linear, const Quantized& quantized, const FactoredHessian* hessian,
              Backend& backend) override;

 private:
  void open_devices();
  void open_writer();
  void read_calibration_data();
  std::unique_ptr<StateStore> make_store(int64_t tokens);
  void choose_bits();
  void quantize_head(const Recipe& recipe);
  void embed_calibration();
  void carry_over();
  void cut_biases(const StoredTensor& tensor, const std::vector<std::string>& linears);
  void expect_work();
  double sweep_work(const std::vector<LinearSpec>& step, int64_t tokens) const {
    const bool two_streams = wants_original_states(job_.recipe);
    return (two_streams ? 2 : 1) * forward_work(step, tokens) + hessian_work(step, tokens, two_streams);
  }
  template <typename Visit>
  void visit_blocks(const Visit& visit);
  void wait_for_writer(size_t may_wait = 0);
  void note_devices();
  void tell_of_experts();
  Report finish();
  std::vector<std::pair<std::string, double>> stage_seconds();

  bool is_quantized(const LinearSpec& linear) const { return setup_.quantized.count(linear.name + ".weight") != 0; }
  const Recipe& recipe_of(const std::string& linear) const { return setup_.quantized.at(linear + ".weight").recipe; }
  Backend& backend_of(const Placement::Unit& unit) { return *backends_.at(unit.computes_on); }
  std::future<StagedBlock> read(int64_t index);
  void set_reading(bool reading) {
    reading_ = reading;
    reading_.notify_all();
  }
  // What goes wrong on a device says where it was.
  template <typename Body>
  void naming_the_step(const Placement::Unit& unit, const Body& body) {
    try {
      body();
    } catch (const OutOfMemory& error) {
      throw OutOfMemory(cat(unit.module, ", step ", step_, ": ", error.what(),
                            "; give it more with --max-memory, or take fewer --samples or a smaller --batch-size"));
    } catch (const DeviceError& error) {
      throw DeviceError(cat(unit.module, ", step ", step_, ", ", stage_, ": ", error.what()));
    }
  }
  void trim(const std::string& when);
  void trim_staging() {
    for (const auto& [name, backend] : backends_) backend->trim_staging();
  }
  void tell(Progress::Kind kind, std::string text);
  void step_done(double work);
  void check_stop() const {
    if (job_.stop.stop_requested()) throw Cancelled();
  }
  template <typename Body>
  auto timed(const char* stage, Body body) {
    struct Scope {
      Quantizer& quantizer;
      ~Scope() { quantizer.end_stage(); }
    };
    begin_stage(stage);
    const Scope scope{*this};
    return body();
  }

  Job job_;  // its recipe is complete once bits are chosen
  const ProgressFunction& progress_;
  Stopwatch watch_;
  double cpu_at_start_ = cpu_seconds();
  Report report_;
  std::map<std::string, double> stages_;
  std::string stage_, step_, damped_step_;
  double stage_began_ = 0, blocks_began_ = 0;
  std::atomic<bool> ended_ = false;    // the run is over, or has failed
  std::atomic<bool> reading_ = false;  // a block is read, or waits to be: what is copied meanwhile lets it pass
  double work_ = 0, work_done_ = 0;    // multiply-adds of the whole job, and so far
  int64_t block_ = 0, tokens_ = 0;
  std::vector<TokenSequence> sequences_;
  double last_loss_ = 0;
  Backend* computing_ = nullptr;          // the device of the block at work
  int64_t bytes_in_ = 0, bytes_out_ = 0;  // of its weights, to the device and back as codes

  Setup setup_;
  std::unique_ptr<LimitedMemory> host_;  // of weights on their way, states, packing, and of a CPU that computes
  std::map<std::string, std::unique_ptr<Backend>> backends_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<StateStore> states_, originals_;  // of the quantized and, where it is wanted, the unquantized model
  std::unique_ptr<CheckpointWriter> writer_;
  std::deque<std::future<void>> writes_;
  std::future<void> carried_over_;
  BackgroundWorker reader_, packer_, carrier_;  // last: they use all of the above
};

void Quantizer::tell(Progress::Kind kind, std::string text) {
  if (kind == Progress::Kind::warning) report_.warnings.push_back(text);
  if (progress_) progress_({.kind = kind, .text = std::move(text)});
}

void Quantizer::begin_stage(const char* stage) {
  stage_ = stage;
  stage_began_ = watch_.seconds();
  if (computing_ != nullptr) computing_->set_stage(stage);
  if (stage_ == kLoadStage) bytes_in_ -= computing_->traffic().uploaded;
}

void Quantizer::end_stage() {
  stages_[stage_] += watch_.seconds() - stage_began_;
  if (computing_ != nullptr) computing_->set_stage("");
  if (stage_ == kLoadStage) bytes_in_ += computing_->traffic().uploaded;
}

void Quantizer::step_done(double work) {
  check_stop();
  work_done_ += work;
  if (!progress_ || work == 0) return;
  Progress progress{.text = step_, .block = block_, .blocks = setup_.config.blocks, .loss = last_loss_};
  progress.fraction = std::min(1.0, work_done_ / work_);
  progress.seconds = watch_.seconds();
  const double working = progress.seconds - blocks_began_;
  progress.remaining_seconds = progress.fraction > 0 ? working * (1 / progress.fraction - 1) : 0;
  progress.tokens_per_second =
      working > 0 ? progress.fraction * static_cast<double>(tokens_ * progress.blocks) / working : 0;
  progress.memory_bytes = resident_bytes();
  progress_(progress);
}

void Quantizer::swept(const std::vector<LinearSpec>& step, int64_t tokens) {
  step_done(step.empty() ? 0 : sweep_work(step, tokens));
}

void Quantizer::solved_step(const std::vector<LinearSpec>& step, int64_t dropped_rows) {
  report_.dropped_rows += dropped_rows;
  double work = 0;
  for (const LinearSpec& linear : step) work += is_quantized(linear) ? solve_work(linear) : 0;
  step_done(work);
}

void Quantizer::wait_for_writer(size_t may_wait) {
  for (; writes_.size() > may_wait; writes_.pop_front()) writes_.front().get();
}

// Written while the next linears are solved; as many as writes_behind() says wait in memory.
void Quantizer::solved(const LinearSpec& linear, const Quantized& quantized, const FactoredHessian* hessian,
                       Backend& backend) {
  check_stop();
  const double damp = hessian != nullptr ? hessian->damp_percent : 0;
  const auto dead = hessian != nullptr ? static_cast<int64_t>(hessian->dead.size()) : 0;
  // The step's linears share the Hessian: said once.
  if (const std::string step = cat(block_, " ", step_); damp > job_.recipe.damp_percent && damped_step_ != step) {
    damped_step_ = step;
    tell(Progress::Kind::warning,
         cat(linear.name, ": its Hessian needed damping ", damp, " instead of ", job_.recipe.damp_percent));
  }
  timed("pack and write", [&] {
    wait_for_writer(writes_behind(setup_) - 1);
    // Shared because a task must be copyable, which a matrix is not.
    const int64_t before = backend.traffic().downloaded;
    auto fetched = std::make_shared<FetchedLinear>(fetch(backend, quantized, backend.staging_memory()));
    bytes_out_ += backend.traffic().downloaded - before;
    // No element of the list moves: it has room for all.
    LinearReport* entry = &report_.linears.emplace_back();
    *entry = {.name = linear.name,
              .block = linear.step == StepKind::head ? -1 : block_,
              .expert = linear.expert,
              .rows = linear.out_features,
              .cols = linear.in_features,
              .bits = quantized.bits,
              .group_size = quantized.group_size,
              .loss = quantized.loss,
              .error = quantized.error,
              .stages = quantized.stages,
              .target_shift = quantized.target_shift,
              .tokens = hessian != nullptr ? hessian->tokens : 0,
              .routed = hessian != nullptr ? hessian->routed : -1,
              .damp_percent = damp,
              .dead_columns = dead};
    writes_.push_back(packer_.submit([this, fetched, entry] {
      entry->scales = scales_of(*fetched);
      write_linear(*writer_, entry->name, pack(*fetched, recipe_of(entry->name)));
    }));
  });
  last_loss_ = quantized.loss;
}

void Quantizer::open_devices() {
  host_ = std::make_unique<LimitedMemory>(host_memory(), "cpu", budget_of(setup_, "cpu"));
  for (const std::string& name : setup_.placement.devices) {
    BackendOptions options{.threads = job_.threads, .memory = host_.get()};
    if (name != "cpu") options.memory_bytes = budget_of(setup_, name);
    backends_[name] = open_backend(name, options);
  }
  host_->on_shortage([this] {
    for (const auto& [name, backend] : backends_) backend->trim();
    trim_staging();
  });
  Backend& first = backend_of(setup_.placement.units[0]);
  model_ = std::make_unique<Model>(*setup_.checkpoint, first, setup_.precision.computed);
  model_->compute_head_on(backend_of(setup_.placement.units.back()));
  for (const auto& [name, backend] : backends_) {
    report_.device += (report_.device.empty() ? "" : "; ") + backend->description();
  }
  tell(Progress::Kind::message, cat("device: ", report_.device));
}

void Quantizer::read_calibration_data() {
  const Calibration& calibration = setup_.calibration;
  sequences_ = read_calibration({calibration.file, tokenizer_of(setup_.checkpoint->folder())},
                                {calibration.samples, calibration.sequence_length, calibration.seed});
  report_.sequences = static_cast<int64_t>(sequences_.size());
  for (const TokenSequence& sequence : sequences_) tokens_ += static_cast<int64_t>(sequence.size());
  report_.tokens = tokens_;
  if (report_.sequences < calibration.samples) {
    tell(Progress::Kind::warning, cat("calibration: ", calibration.file, " gives ", report_.sequences, " sequences (",
                                      tokens_, " tokens), fewer than the ", calibration.samples, " of --samples"));
  }
  tell(Progress::Kind::message,
       cat("calibration: ", report_.sequences, " sequences, ", tokens_, " tokens of ", calibration.file));
}

std::unique_ptr<StateStore> Quantizer::make_store(int64_t tokens) {
  const Placement& placement = setup_.placement;
  Backend& backend = backend_of(placement.units[0]);
  const StateBytes bytes = state_bytes(setup_);
  auto store =
      placement.states == StatePlace::spill
          ? std::make_unique<StateStore>(job_.spill_dir, tokens, bytes.residual, bytes.input, backend.staging_memory())
          : std::make_unique<StateStore>(placement.states, backend.staging_memory());
  if (!placement.keeps_inputs) store->drop_inputs();
  return store;
}

void Quantizer::embed_calibration() {
  const Placement::Unit& unit = setup_.placement.units[0];
  Backend& backend = backend_of(unit);
  states_ = make_store(tokens_);
  if (wants_original_states(job_.recipe)) originals_ = make_store(tokens_);
  const int64_t before = backend.traffic().uploaded;
  ThreadPool pool(job_.threads);
  backend.set_stage(kEmbeddingStage);
  for (const auto& sequence_batch : make_batches(sequences_, job_.batch_size, setup_.batch_tokens)) {
    Batch batch = model_->embed(sequence_batch, backend, &pool);
    if (originals_ != nullptr) {
      Batch original{.offsets = batch.offsets,
                     .residual = Matrix(backend, batch.residual.dtype(), batch.tokens(), batch.residual.cols())};
      backend.run(ops::Convert{.x = batch.residual, .y = original.residual});
      originals_->add(std::move(original), backend);
    }
    states_->add(std::move(batch), backend);
  }
  backend.set_stage("");
  backend.wait();
  if (unit.visits) report_.visits.push_back({unit.module, unit.computes_on, backend.traffic().uploaded - before, 0});
  size_t longest = 0;
  for (const TokenSequence& sequence : sequences_) longest = std::max(longest, sequence.size());
  for (const auto& [name, device] : backends_) model_->prepare(static_cast<int64_t>(longest), *device);
}

void Quantizer::expect_work() {
  if (!setup_.widths.empty()) {
    int64_t tokens = 0, probe_tokens = 0;
    for (const auto& batch : measuring_batches(sequences_)) {
      for (const TokenSequence& sequence : batch) tokens += static_cast<int64_t>(sequence.size());
      if (probe_tokens == 0) probe_tokens = tokens;
    }
    work_ = probing_work(setup_.config, job_.recipe, setup_.widths, tokens, probe_tokens);
  }
  if (job_.recipe.method == Method::gptq) {
    for (const auto& step : all_steps(setup_.config)) work_ += sweep_work(step, tokens_);
  }
  for (const auto& [name, linear] : setup_.quantized) work_ += solve_work(linear.spec);
  const LinearSpec head = head_spec(setup_.config);
  if (job_.recipe.method == Method::gptq && is_quantized(head)) work_ += sweep_work({head}, tokens_);
}

// A pass through the model of its own: which bits each step gets.
void Quantizer::choose_bits() {
  const auto batches = measuring_batches(sequences_);
  Backend& first = backend_of(setup_.placement.units[0]);
  int64_t tokens = 0, probe_tokens = 0;
  ThreadPool pool(job_.threads);
  std::vector<Batch> embedded;
  for (const auto& sequences : batches) {
    embedded.push_back(model_->embed(sequences, first, &pool));
    tokens += embedded.back().tokens();
    if (probe_tokens == 0) probe_tokens = tokens;
  }
  const auto steps = all_steps(setup_.config);
  const auto states = make_store(tokens),
             probes = make_store(probe_tokens * probed_widths(setup_.widths) * static_cast<int64_t>(steps.size()));
  for (Batch& batch : embedded) states->add(std::move(batch), first);
  embedded.clear();
  BitProbes run(*model_, job_.recipe, setup_.widths, *states, *probes);
  visit_blocks([&](const StagedBlock& staged, Backend& backend) {
    step_ = "measuring bits";
    run.pass_block(staged, backend, *this);
  });
  block_ = setup_.config.blocks - 1;
  computing_ = &backend_of(setup_.placement.units.back());
  run.read_probes(*computing_, *this);
  model_->drop_head();
  trim("bits chosen");
  trim_staging();

  std::vector<BitUnit> units;
  for (const BitProbes::Step& step : run.steps()) units.push_back(step.unit);
  std::vector<int> chosen;
  for (const size_t candidate : gptq::choose_bits(units, setup_.free_average))
    chosen.push_back(units[chosen.size()].candidates[candidate].bits);
  job_.recipe = with_choice(job_.recipe, run.steps(), chosen);
  lay_out(job_, setup_);
  std::map<int, int> counts;
  for (size_t i = 0; i < chosen.size(); ++i) {
    ++counts[chosen[i]];
    BitChoice& choice = report_.bit_choices.emplace_back();
    choice.linears = run.steps()[i].linears;
    choice.bits = chosen[i];
    for (const BitUnit::Candidate& candidate : run.steps()[i].unit.candidates)
      choice.divergence.emplace_back(candidate.bits, candidate.loss);
  }
  std::string text;
  for (const auto& [bits, count] : counts) text += cat(text.empty() ? "" : ", ", bits, " in ", count, " steps");
  tell(Progress::Kind::message, cat("bits: ", text));
}

std::future<StagedBlock> Quantizer::read(int64_t index) {
  set_reading(true);
  return reader_.submit([this, index] {
    struct Scope {
      Quantizer& quantizer;
      ~Scope() { quantizer.set_reading(false); }
    } scope{*this};
    return model_->stage_block(index, backend_of(setup_.placement.block(index)).staging_memory());
  });
}

// Gives each linear its own bias, of those that lie in one tensor.
void Quantizer::cut_biases(const StoredTensor& tensor, const std::vector<std::string>& linears) {
  const Checkpoint& checkpoint = *setup_.checkpoint;
  const DType dtype = parse_safetensors_dtype(tensor.dtype).value_or(DType::f32);  // which the model has checked
  Matrix all(host_memory(), dtype, tensor.shape[0], tensor.shape[1]);
  checkpoint.read(tensor, 0, all.bytes(), all.view().data);
  refuse_nonfinite(checkpoint, tensor, count_nonfinite(all));
  for (const std::string& name : linears) {
    const LinearSpec& spec = setup_.quantized.at(name + ".weight").spec;
    Matrix bias(host_memory(), dtype, 1, spec.out_features);
    std::vector<int32_t> columns;
    for (int64_t i = 0; i < spec.out_features; ++i)
      columns.push_back(static_cast<int32_t>(spec.first + i * spec.stride));
    reference(ops::GatherColumns{.x = all.view().row_range(spec.slab, 1), .ids = columns, .y = bias});
    writer_->write(name + ".bias", bias.view().data, bias.bytes());
  }
}

// Copies, in pieces and while no block is read, what is not quantized.
void Quantizer::carry_over() {
  carried_over_ = carrier_.submit([this] {
    constexpr size_t kPiece = size_t{4} << 20;
    std::vector<std::byte> piece(kPiece);
    const Checkpoint& checkpoint = *setup_.checkpoint;
    for (const StoredTensor* tensor : checkpoint.tensors()) {
      if (setup_.replaced.count(tensor->name) != 0) continue;
      if (const auto biases = setup_.cut_biases.find(tensor->name); biases != setup_.cut_biases.end()) {
        cut_biases(*tensor, biases->second);
        continue;
      }
      int64_t bad = 0;
      for (size_t first = 0; first < tensor->bytes; first += kPiece) {
        reading_.wait(true);
        const size_t bytes = std::min(kPiece, tensor->bytes - first);
        checkpoint.read(*tensor, first, bytes, piece.data());
        const DType dtype = parse_safetensors_dtype(tensor->dtype).value_or(DType::u8);
        bad += count_nonfinite({piece.data(), dtype, 1, static_cast<int64_t>(bytes / size_of(dtype))});
        writer_->write_part(tensor->name, first, piece.data(), bytes);
        if (ended_) return;
      }
      refuse_nonfinite(checkpoint, *tensor, bad);
    }
  });
  const Checkpoint& checkpoint = *setup_.checkpoint;
  for (const auto& file : checkpoint.side_files()) writer_->copy_file(checkpoint.folder() / file, file);
  const Json quantization = output_config(job_, setup_);
  Json model_config = checkpoint.config();
  model_config["quantization_config"] = quantization;
  writer_->write_file("config.json", model_config.dump(2) + "\n");
  if (has_config_file(job_.recipe)) writer_->write_file("quantize_config.json", quantization.dump(2) + "\n");
}

void Quantizer::trim(const std::string& when) {
  for (const auto& [name, backend] : backends_) {
    const int64_t before = backend->memory_use().held;
    backend->trim();
    report_.trims.push_back({when, name, before, backend->memory_use().held});
  }
}

// A module on the CPU visits its device alone: its block is gone before the next one begins, whichever device that
// next one is on.
template <typename Visit>
void Quantizer::visit_blocks(const Visit& visit) {
  const int64_t blocks = setup_.config.blocks;
  std::future<StagedBlock> next = read(0);
  if (blocks_began_ == 0) blocks_began_ = watch_.seconds();
  for (block_ = 0; block_ < blocks; ++block_) {
    check_stop();
    const Placement::Unit& unit = setup_.placement.block(block_);
    Backend& backend = backend_of(unit);
    const int64_t at_once = model_->sequences_at_once();
    computing_ = &backend;
    bytes_in_ = bytes_out_ = 0;
    step_ = "read";
    naming_the_step(unit, [&] {
      StagedBlock staged = timed("read", [&] { return next.get(); });
      if (setup_.placement.read_ahead && block_ + 1 < blocks) next = read(block_ + 1);
      visit(std::move(staged), backend);
    });
    if (model_->sequences_at_once() < std::min(at_once, report_.plan.sequences_at_once)) {
      tell(Progress::Kind::warning,
           cat(unit.module, ": ", unit.computes_on, " ran out of memory; from here on ", model_->sequences_at_once(),
               " sequences pass at a time, with the same result"));
    }
    if (unit.visits) report_.visits.push_back({unit.module, unit.computes_on, bytes_in_, bytes_out_});
    trim(unit.module);
    if (!setup_.placement.read_ahead && block_ + 1 < blocks) next = read(block_ + 1);
  }
}

void Quantizer::quantize_head(const Recipe& recipe) {
  const Placement::Unit& unit = setup_.placement.units.back();
  trim_staging();  // of blocks that have been read
  computing_ = &backend_of(unit);
  bytes_in_ = bytes_out_ = 0;
  block_ = setup_.config.blocks - 1;
  naming_the_step(unit, [&] { gptq::quantize_head(*model_, recipe, *computing_, *states_, originals_.get(), *this); });
  if (unit.visits) report_.visits.push_back({unit.module, unit.computes_on, bytes_in_, bytes_out_});
  trim(unit.module);
}

void Quantizer::open_writer() {
  writer_.reset();
  writer_ = std::make_unique<CheckpointWriter>(setup_.checkpoint->folder(), job_.output, job_.overwrite, setup_.output,
                                               static_cast<size_t>(job_.max_shard_bytes));
}

Report Quantizer::run() {
  timed("setup", [&] { setup_ = set_up(job_); });
  timed("plan", [&] { report_.plan = make_plan(job_, setup_, static_cast<bool>(progress_)); });
  report_.warnings = report_.plan.warnings;
  if (progress_) {
    for (const std::string& text : report_.plan.messages) progress_({.kind = Progress::Kind::message, .text = text});
    for (const std::string& text : report_.plan.warnings) progress_({.kind = Progress::Kind::warning, .text = text});
    progress_({.kind = Progress::Kind::message, .text = short_form(report_.plan)});
  }
  timed("setup", [&] { open_devices(); });
  const bool chooses = !setup_.widths.empty();
  // An output that cannot be written is refused before anything is computed, by the smallest that may come.
  if (chooses) lay_out(at_width(job_, setup_.widths[0]), setup_);
  open_writer();
  if (job_.recipe.method == Method::gptq) timed(kCalibrationStage, [&] { read_calibration_data(); });
  expect_work();
  if (chooses) {
    choose_bits();
    open_writer();
  }
  states_ = std::make_unique<StateStore>(StatePlace::device);
  if (job_.recipe.method == Method::gptq) {
    timed(kCalibrationStage, [&] { embed_calibration(); });
    trim("first block's inputs captured");
  }
  timed("pack and write", [&] { carry_over(); });

  report_.linears.reserve(setup_.quantized.size());
  visit_blocks([&](StagedBlock staged, Backend& backend) {
    quantize_block(*model_, job_.recipe, std::move(staged), backend, *states_, originals_.get(), *this);
  });
  if (const auto recipe = recipe_for_head(job_.recipe, head_spec(setup_.config).name)) quantize_head(*recipe);
  note_devices();
  timed(kCommitStage, [&] {
    wait_for_writer();
    carried_over_.get();
    writer_->commit();
  });
  return finish();
}

void Quantizer::note_devices() {
  for (const auto& [name, backend] : backends_) {
    for (const auto& [op, count] : backend->fallbacks()) report_.fallbacks.emplace_back(op, count);
    Report::DeviceUse use{name, backend->memory_use().peak, backend->traffic().uploaded, backend->traffic().downloaded};
    for (const auto& [stage, op, seconds] : backend->device_seconds()) use.op_seconds.push_back({stage, op, seconds});
    report_.devices.push_back(std::move(use));
  }
}

// Where the run's time went, stage by stage. One device with a clock of its own knows better than the host, which only
// queues its work: the host's part is then what came before the device's first work and after its last.
std::vector<std::pair<std::string, double>> Quantizer::stage_seconds() {
  const Report::DeviceUse* clock = nullptr;
  for (const Report::DeviceUse& device : report_.devices) {
    if (!device.op_seconds.empty()) clock = report_.devices.size() == 1 ? &device : nullptr;
  }
  if (clock == nullptr) return {stages_.begin(), stages_.end()};
  std::map<std::string, double> stages;
  for (const char* stage : {"setup", "plan", kCalibrationStage, kCommitStage}) stages[stage] = stages_[stage];
  for (const auto& [stage, op, seconds] : clock->op_seconds) {
    if (stage == kEmbeddingStage) continue;  // the host waits for it, in kCalibrationStage
    const bool feedback = stage == "columns" && op == "linear";
    const bool moving = stage.empty() && (op == "upload" || op == "download");
    stages[op == "idle" || op == "attention" ? op : feedback ? "feedback" : moving ? kMovingStage : stage] += seconds;
  }
  return {stages.begin(), stages.end()};
}

// How many tokens experts have seen, and which of them too few.
void Quantizer::tell_of_experts() {
  constexpr size_t kNamed = 8;
  std::vector<int64_t> routed;
  std::vector<std::string> few;
  for (const LinearReport& linear : report_.linears) {
    if (linear.routed < 0) continue;
    routed.push_back(linear.routed);
    if (linear.routed < linear.tokens) few.push_back(cat(linear.name, " (", linear.routed, ")"));
  }
  if (routed.empty()) return;
  std::sort(routed.begin(), routed.end());
  tell(Progress::Kind::message, cat("experts: ", routed.front(), " to ", routed.back(),
                                    " tokens each, half of them at most ", routed[routed.size() / 2]));
  if (few.empty() || job_.recipe.moe_calibrate_all_experts) return;
  std::string names;
  for (size_t i = 0; i < std::min(few.size(), kNamed); ++i) names += cat(i == 0 ? "" : ", ", few[i]);
  if (few.size() > kNamed) names += cat(" and ", few.size() - kNamed, " more, which the report lists");
  tell(Progress::Kind::warning, cat(few.size(), " linears of experts saw fewer than ", job_.recipe.expert_tokens,
                                    " tokens and were quantized with what they would do to all tokens: ", names,
                                    "; take more --samples, or --moe-calibrate-all-experts"));
}

Report Quantizer::finish() {
  report_.spill_bytes = states_->spill_bytes() + (originals_ != nullptr ? originals_->spill_bytes() : 0);
  states_.reset();
  originals_.reset();
  model_.reset();
  trim("end");
  report_.model = job_.model;
  report_.output = job_.output;
  report_.recipe = resolved(job_.recipe);
  report_.checkpoint_format = name_of(resolved_format(job_.recipe));
  report_.compute_dtype = name_of(setup_.precision.computed);
  report_.device_map = setup_.placement.map;
  report_.states = name_of(setup_.placement.states);
  report_.quantized_weights = setup_.quantized_weights;
  report_.bits_per_weight = setup_.bits_per_weight;
  double bits = 0, weights = 0;
  for (const auto& [name, linear] : setup_.quantized) {
    if (linear.spec.name == head_spec(setup_.config).name) continue;
    const auto size = static_cast<double>(linear.spec.in_features * linear.spec.out_features);
    weights += size;
    bits += size * linear.recipe.bits;
  }
  report_.average_bits = weights > 0 ? bits / weights : 0;
  report_.source_bytes = static_cast<int64_t>(setup_.checkpoint->bytes());
  report_.output_bytes = static_cast<int64_t>(writer_->output_bytes());
  tell_of_experts();
  if (report_.dropped_rows > 0) {
    tell(Progress::Kind::warning,
         cat(report_.dropped_rows, " calibration rows held NaN or infinity and were left out of the Hessians"));
  }
  report_.stage_seconds = stage_seconds();
  report_.seconds = watch_.seconds();
  report_.cpu_seconds = cpu_seconds() - cpu_at_start_;
  report_.peak_memory_bytes = peak_resident_bytes();
  return std::move(report_);
}

}  // namespace

void remove_partial_output(const std::string& output) { CheckpointWriter::remove_partial(output); }

Report quantize(const Job& job, const ProgressFunction& progress) { return Quantizer(job, progress).run(); }

}  // namespace gptq
