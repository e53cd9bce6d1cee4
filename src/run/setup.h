// All that is known about a job before a weight is read: the model's headers, the machine, the map and its rules, the
// output's layout.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/calibration.h"
#include "format/format.h"
#include "gptq/gptq.h"
#include "io/checkpoint.h"
#include "recipe/rules.h"
#include "run/offload_rules.h"
#include "run/placement.h"

namespace gptq {

// A message or a warning for the user.
struct Notice {
  Progress::Kind kind = Progress::Kind::message;
  std::string text;
};

// The machine as --max-memory leaves it.
struct Resources {
  Machine machine;
  MaxMemory max_memory;
  int64_t limit_of(const std::string& device) const;  // bytes; 0 where neither --max-memory nor the device says
};
Resources find_resources(const std::string& max_memory);

struct Setup {
  std::unique_ptr<Checkpoint> checkpoint;
  ModelConfig config;
  Resources resources;
  Precision precision;
  Placement placement;
  std::vector<Notice> notices;

  const Format* format = nullptr;                    // of the output
  std::map<std::string, QuantizedLinear> quantized;  // what is quantized, by the name of its weight
  // Tensors of the checkpoint that the output has in another form, and the linears that they become; and those of
  // biases that are cut up with them.
  std::map<std::string, std::vector<std::string>> replaced, cut_biases;
  std::vector<StoredLinear> linears;      // of all blocks, as the output has them
  double free_average = 0;                // bits, of the linears whose bits are up for choice
  std::vector<int> widths;                // up for choice; empty where the recipe leaves none
  std::vector<ModuleRule> written_rules;  // the recipe's, with names that loaders fuse
  OutputLayout layout;                    // of the output
  int64_t batch_tokens = 0;               // of a batch where --batch-size does not say
  int64_t workspace_bytes = 0;            // that each device takes beside its matrices
  int64_t quantized_weights = 0, output_bytes = 0;
  double bits_per_weight = 0;
  int64_t process_bytes = 0;  // of memory that this process takes without the run's matrices
  int64_t reserve_bytes = 0;  // kept free under a limit, for what threads may yet take for themselves
  Calibration calibration;    // with its file found and its length cut to the model's positions
};

// Linears that may wait to be written while the next ones are solved. A CPU that computes is slower than a disk, so one
// does; an accelerator must not wait for the disk between the short linears of a block.
size_t writes_behind(const Setup& setup);

// Bytes that a token's states take: its residual, and its widest step input.
struct StateBytes {
  int64_t residual = 0, input = 0;
  int64_t both() const { return residual + input; }
};
StateBytes state_bytes(const Setup& setup);

// Lays the output out once more, for a recipe whose bits have been chosen.
void lay_out(const Job& job, Setup& setup);

// The steps of all blocks.
std::vector<std::vector<LinearSpec>> all_steps(const ModelConfig& config);

// What the output tells of its making.
OutputRecord output_record(const Job& job, const Setup& setup);

// Throws InputError for a job that makes no sense.
Setup set_up(const Job& job);

// The placement of a model that is run, not quantized, with what the rules say about it.
Placement placement_for_running(const Checkpoint& checkpoint, const ModelConfig& config, const std::string& device_map,
                                const Resources& resources, std::vector<Notice>& notices);

// The dtype of a checkpoint's embedding: its precision, quantized or not.
DType stored_dtype(const Checkpoint& checkpoint, const ModelConfig& config);

// Sequences of one length side by side, in the order given, each batch of about batch_tokens tokens (batch_size
// sequences where that is not 0).
std::vector<std::vector<TokenSequence>> make_batches(const std::vector<TokenSequence>& sequences, int64_t batch_size,
                                                     int64_t batch_tokens);

}  // namespace gptq
