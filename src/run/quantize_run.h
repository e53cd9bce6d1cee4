// A quantization from its facts to its report.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "io/output_folder.h"
#include "report/collect.h"
#include "run/continuation.h"
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
  const Facts& facts() const { return setup_.facts; }
  bool calibrates() const { return job_.recipe.method == Method::gptq; }
  bool chooses() const { return !facts().widths.empty(); }
  int64_t blocks() const { return facts().config.blocks; }
  void open_session();
  void check_room() const;
  // Chooses the bits of each step, by what an earlier run measured or in a separate pass through the model.
  void choose_bits(const std::vector<TokenSequence>& sequences);
  bool is_finished() const;
  void embed(const CalibrationText& text, Quantization& quantization);
  void quantize(Quantization& quantization, const std::vector<TokenSequence>& sequences);
  // Brings the states to the first block that is not finished. longest: tokens of the longest sequence.
  void restore_states(Quantization& quantization, int64_t longest);
  void store(const LinearSpec& linear, const Quantized& quantized, Backend& backend, LinearReport& entry);
  // Compares the output with what was computed and with the original model.
  void check(HeldBack& held_back, const CalibrationText& text);
  void commit();

  Job job_;  // its recipe is complete after choose_bits()
  Collector collector_;
  Setup setup_;
  Decision decision_;
  Layout layout_;  // of the output; final after choose_bits()
  std::optional<Devices> devices_;
  std::optional<DeviceSession> session_;
  std::optional<OutputFolder> folder_;
  std::optional<Output> output_;
  std::optional<Continuation> continuation_;
  std::optional<ThreadPool> pool_;
};

}  // namespace gptq
