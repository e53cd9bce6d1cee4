// All facts about a job that are known before a weight is read: the model's headers, the machine, the map and its
// rules. Const once found.
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
  Calibration calibration;      // with the file found, and the length limited to the model's positions
  int64_t batch_tokens = 0;     // of a batch, unless Job::batch_size is set
  int64_t workspace_bytes = 0;  // that each device takes in addition to its matrices
  std::vector<int> widths;      // candidates for Recipe::average_bits, ascending; empty without it
  double free_average = 0;      // mean bits of the linears whose width is chosen
  std::vector<Notice> notices;
};

// Settles the group size of the job's recipe (plan/group_size.h). Throws InputError for an invalid job, or a model that
// cannot be quantized.
Facts find_facts(Job& job);

// The number of linears that may wait to be written while the next ones are solved: one if the CPU computes, which is
// slower than a disk; more for an accelerator, which must not wait for the disk between the small linears of a block.
size_t writes_behind(const Placement& placement);

// Bytes of one token's states: its residual, and its widest step input.
struct StateBytes {
  int64_t residual = 0, input = 0;
  int64_t both() const { return residual + input; }
};
StateBytes state_bytes(const Facts& facts);

// Adds what a user should know of a model to the notices. Throws UnsupportedError for keys of its config.json that
// nothing reads, other than those in `ignored_keys`.
void tell_and_refuse(const Checkpoint& checkpoint, const ModelConfig& config, const std::string& ignored_keys,
                     std::vector<Notice>& notices);

// The placement of a model that is evaluated, with the messages of the rules.
Placement placement_for_running(const Checkpoint& checkpoint, const ModelConfig& config, const std::string& device_map,
                                const Resources& resources, std::vector<Notice>& notices);

// The dtype of a checkpoint's embedding, which is its precision, quantized or not.
DType stored_dtype(const Checkpoint& checkpoint, const ModelConfig& config);

}  // namespace gptq
