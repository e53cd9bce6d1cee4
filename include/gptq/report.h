// Plans and reports: time, memory, disk and losses of a job, expected and measured.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gptq/recipe.h"

namespace gptq {

struct LinearReport {
  std::string name;
  int64_t block = -1, expert = -1;  // -1: of no block, of no expert
  int64_t rows = 0, cols = 0;       // out_features, in_features
  int bits = 0;
  int64_t group_size = 0;
  // gptq: mean over tokens of |(T - Q) x|^2, T being the targets; rtn: mean square of W - Q.
  double loss = 0;
  double error = 0;  // the same relative to |W x|^2, or to W's mean square
  // The loss after each stage: "rounded" (each weight to the nearest code), "columns", "refit", "sweep".
  std::vector<std::pair<std::string, double>> stages;
  double target_shift = 0;  // |(T - W) x|^2 relative to |W x|^2
  int64_t tokens = 0;       // that the Hessian has seen
  int64_t routed = -1;      // an expert's tokens by its router; fewer than `tokens` where those were too few
  struct Scales {
    double least = 0, median = 0, largest = 0;  // magnitudes
    double negative = 0;                        // share of them
  } scales;
  double damp_percent = 0;  // that the factorization succeeded with
  int64_t dead_columns = 0;
};

struct LoaderVerdict {
  std::string loader, reason;  // reason: empty where it is accepted without a remark
  bool accepts = false;
};

// The time, memory and disk that a job will take, worked out from the headers of the model's files, by a run on devices
// that only count.
struct Plan {
  struct Device {
    std::string name, description;
    int64_t peak_bytes = 0, limit_bytes = 0;  // limit: of Job::max_memory, or what the device has
  };
  struct Unit {
    std::string module, computes_on, stays;  // stays: the map's device, "cpu" or "disk"
    int64_t bytes = 0;                       // of its weights as stored
    bool visits = false;                     // comes from the CPU for its turn, alone
  };
  std::string model, output, device_map, compute_dtype, checkpoint_format;
  std::string states;                // where hidden states wait: "device", "host" or "spill"
  bool keeps_inputs = true;          // besides the residuals; otherwise steps' inputs are computed again
  std::vector<Device> accelerators;  // that compute
  Device host;                       // all of this process's memory
  std::vector<Unit> units;
  bool read_ahead = true;  // the next block is read while this one computes
  int64_t sequences = 0, tokens = 0;
  int64_t sequences_at_once = 0;  // that pass a step together at most; fewer where memory is short
  int64_t spill_bytes = 0, source_bytes = 0, output_bytes = 0, quantized_weights = 0;
  int64_t saved_states_bytes = 0;  // in OUT.partial, besides the output (Job::checkpoint_states)
  double bits_per_weight = 0;
  double seconds = 0;                                         // 0: not estimated
  std::vector<std::pair<std::string, double>> stage_seconds;  // where they go, the longest first
  std::vector<LoaderVerdict> loaders;
  std::vector<std::string> messages, warnings;  // from the rules of device maps, offload and precision
};

// Linears that read one input and got one width.
struct BitChoice {
  std::vector<std::string> linears;
  int bits = 0;
  // Cost of each width to the model's predictions, estimated from that of the least one: KL in nats a token.
  std::vector<std::pair<int, double>> divergence;
};

// The output, read as a loader would, on a few sequences of the calibration's text, against the original model. Losses
// and KL(original || output) in nats per predicted token.
struct Check {
  int64_t sequences = 0, tokens = 0;  // tokens: predicted; 0 for a model without an output head
  bool held_back = false;             // the sequences are not of the calibration
  double mean_kl = 0, same_top = 0;   // same_top: share of tokens where both have one most likely next token
  double model_nll = 0, quantized_nll = 0;
  double frequency_nll = 0;  // of the same tokens, predicted from their frequencies in the calibration
  double difference = 0;     // of its states and logits from those that the run had, relative
};

struct Report {
  std::string model, output, device, compute_dtype, checkpoint_format, device_map, states;
  Recipe recipe;
  std::vector<LinearReport> linears;
  std::vector<BitChoice> bit_choices;  // for Recipe::average_bits
  double average_bits = 0;             // of the blocks' codes
  int64_t sequences = 0, tokens = 0, dropped_rows = 0;
  int64_t resumed_parts = 0;  // blocks, and the output head, that an earlier run had finished
  bool skipped = false;  // the output was there already (Job::skip_existing): only model, output and recipe are set
  int64_t source_bytes = 0, output_bytes = 0, quantized_weights = 0;
  double bits_per_weight = 0;  // of the quantized linears, scales and zeros included
  double seconds = 0, cpu_seconds = 0;
  int64_t peak_memory_bytes = 0;
  std::vector<std::pair<std::string, double>> stage_seconds;
  std::vector<std::pair<std::string, int64_t>> fallbacks;  // ops the device lacks, and how often the host ran them
  struct DeviceUse {
    std::string name;
    int64_t peak_bytes = 0, uploaded_bytes = 0, downloaded_bytes = 0;
    struct OpSeconds {
      std::string stage, op;
      double seconds = 0;
    };
    std::vector<OpSeconds> op_seconds;  // the device's own time, where it keeps a clock; op "idle": without work
  };
  std::vector<DeviceUse> devices;
  // A module that came to a device from the CPU for its turn.
  struct Visit {
    std::string module, device;
    int64_t bytes_in = 0, bytes_out = 0;
  };
  std::vector<Visit> visits;
  // A cache that was cleared: bytes held for reuse before and after.
  struct Trim {
    std::string when, device;
    int64_t held_before = 0, held_after = 0;
  };
  std::vector<Trim> trims;
  int64_t spill_bytes = 0;
  std::optional<Check> check;  // of the output at the end (Job::final_check)
  Plan plan;                   // as it was before the run
  std::vector<std::string> warnings;
};

std::string to_json(const Plan& plan);
std::string to_json(const Report& report);

}  // namespace gptq
