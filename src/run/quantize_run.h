// A quantization from its facts to its report.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "io/output_folder.h"
#include "report/collect.h"
#include "run/journal.h"
#include "run/output.h"
#include "run/quantize.h"

namespace gptq {

class QuantizeRun {
 public:
  // Finds the facts, decides and opens the devices. Throws InputError for a job that cannot run. References must
  // outlive it.
  QuantizeRun(const Job& job, const Listener& listener);
  ~QuantizeRun();
  QuantizeRun(const QuantizeRun&) = delete;
  QuantizeRun& operator=(const QuantizeRun&) = delete;
  // Computes, and puts the output in place.
  Report report();

 private:
  Report compute();
  Report compute_or_say_how_to_continue();
  const Facts& facts() const { return setup_.facts; }
  bool calibrates() const { return job_.recipe.method == Method::gptq; }
  bool chooses() const { return !facts().widths.empty(); }
  int64_t blocks() const { return facts().config.blocks; }
  void open_session();
  void check_room() const;
  std::vector<TokenSequence> read_calibration_data();
  // Chooses the bits of each step, by what an earlier run measured or in a separate pass through the model.
  void choose_bits(const std::vector<TokenSequence>& sequences);
  std::vector<ProbedStep> measure(const std::vector<TokenSequence>& sequences);
  // Takes over the parts that an earlier run finished.
  void restore_parts();
  // Multiply-adds of the job from here on.
  double expected_work(const std::vector<TokenSequence>& sequences) const;
  // Brings the states to the first block that is not finished.
  // longest: tokens of the longest sequence.
  void restore_states(Quantization& quantization, int64_t longest);
  void store(const LinearSpec& linear, const Quantized& quantized, Backend& backend, LinearReport& entry);
  // Notes in the journal that a block is done, or the head with the number of blocks.
  void note_part(int64_t part);
  void save_states(int64_t block, const Quantization& quantization);
  void finish_journal();

  Job job_;  // its recipe is complete after choose_bits()
  Collector collector_;
  Setup setup_;
  Decision decision_;
  Layout layout_;  // of the output; final after choose_bits()
  std::optional<Devices> devices_;
  std::optional<DeviceSession> session_;
  std::optional<OutputFolder> folder_;
  std::optional<Output> output_;
  std::optional<Journal> journal_;
  std::optional<ThreadPool> pool_;
  int64_t finished_ = 0;                      // parts: blocks, then the head
  std::vector<const LinearReport*> entries_;  // of the part at work
  int64_t dropped_rows_ = 0;                  // before the part at work
  bool saves_states_ = false;
};

}  // namespace gptq
