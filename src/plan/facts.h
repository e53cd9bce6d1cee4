// All that is known about a job before a weight is read: the model's headers, the machine, the map and its rules. Const
// once it is found.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "format/format.h"
#include "gptq/gptq.h"
#include "io/checkpoint.h"
#include "model/specs.h"
#include "plan/offload_rules.h"
#include "plan/placement.h"
#include "plan/resources.h"

namespace gptq {

// A message or a warning for the user.
struct Notice {
  Level level = Level::message;
  std::string text;
};

struct Facts {
  const Format* format = nullptr;  // of the output
  std::unique_ptr<Checkpoint> checkpoint;
  ModelConfig config;
  Resources resources;
  Precision precision;
  Placement placement;
  Calibration calibration;      // its file found, its length cut to the model's positions
  int64_t batch_tokens = 0;     // of a batch where Job::batch_size does not say
  int64_t workspace_bytes = 0;  // that each device takes besides its matrices
  std::vector<int> widths;      // up for choice with Recipe::average_bits, rising; empty where the recipe leaves none
  double free_average = 0;      // bits, of the linears whose width is up for choice
  std::vector<Notice> notices;
};

// Throws InputError for a job that makes no sense, or whose model cannot be quantized.
Facts find_facts(const Job& job);

// Linears that may wait to be written while the next ones are solved. A CPU that computes is slower than a disk, so one
// does; an accelerator must not wait for the disk between the short linears of a block.
size_t writes_behind(const Placement& placement);

// Bytes of one token's states: its residual, and its widest step input.
struct StateBytes {
  int64_t residual = 0, input = 0;
  int64_t both() const { return residual + input; }
};
StateBytes state_bytes(const Facts& facts);

// The placement of a model that is run, not quantized, with what the rules say about it.
Placement placement_for_running(const Checkpoint& checkpoint, const ModelConfig& config, const std::string& device_map,
                                const Resources& resources, std::vector<Notice>& notices);

// The dtype of a checkpoint's embedding: its precision, quantized or not.
DType stored_dtype(const Checkpoint& checkpoint, const ModelConfig& config);

}  // namespace gptq
