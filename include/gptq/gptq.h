// The public API of gptq.cpp: a Hugging Face model folder in, a GPTQ folder out. The library never prints and never
// exits; it throws gptq::Error (gptq/error.h).
#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

#include "gptq/error.h"
#include "gptq/evaluate.h"
#include "gptq/generate.h"
#include "gptq/listener.h"
#include "gptq/options.h"
#include "gptq/recipe.h"
#include "gptq/report.h"
#include "gptq/text.h"
#include "gptq/version.h"

namespace gptq {

struct Calibration {
  // A text, a file of records (.jsonl, .json, .csv, .tsv), either in gzip, or "-" for stdin; empty: calibration.txt
  // beside the model's folder, where there is one, else the built-in text.
  std::string file;
  std::string key;                                // that records have the text, ids or messages under; empty: found
  std::vector<std::vector<int32_t>> ids;          // token ids from memory; when not empty, no file is read
  int64_t samples = 128, sequence_length = 2048;  // a sequence is cut to the model's positions
  uint64_t seed = 0;                              // which sequences; 0: spread evenly
};

struct Job {
  std::string model, output;
  Calibration calibration;
  Recipe recipe;
  // The device of each module: a JSON object, a file that holds one, a device for all, or auto, balanced,
  // balanced_low_0, sequential. Empty: the current accelerator, the CPU where there is none.
  std::string device_map;
  std::string max_memory;     // JSON: {"cuda:0": "20GiB", "cpu": "64GiB"}; empty: what the devices have
  std::string spill_dir;      // folder for states that find no room in memory; empty: they must fit
  int64_t max_read_rate = 0;  // bytes a second read from the model's disk; 0: no limit
  int64_t batch_size = 0;     // sequences at a time; 0: about 2048 tokens, 8192 on a GPU or with AMX
  int threads = 0;            // 0: all cores
  // Dtype of the forward pass: fp32, bf16 or fp16; auto: the checkpoint's dtype where the device is fast in it.
  std::string precision = "auto";
  std::string ignore_config_keys;  // keys of config.json, with commas, that may change the computation and are not read
  // Takes a model whose weights are quantized already: they are dequantized, and rounded a second time.
  bool from_quantized = false;
  int64_t max_shard_bytes = 5'000'000'000;
  std::string loader;  // that must take the output: vllm, sglang, transformers, gptqmodel or exllamav2; empty: any
  bool overwrite = false;
  // Continues a run with the same result that ended early, from its last whole block; and leaves OUTPUT.partial for
  // another one if this one ends early.
  bool resume = false;
  bool checkpoint_states = false;  // saves the states at each block, for a quicker `resume`
  // Reads the output at the end, and compares it with the original on a few sequences of the calibration's text.
  bool final_check = true;
  bool skip_existing = false;  // ends at once if the output is there and has this recipe
  std::stop_token stop;        // ask to end: Cancelled is thrown; nothing is left behind without `resume`
};

// Throws InputError for a job that cannot run: it says what does not fit, and the smallest that would.
Plan plan(const Job& job);

Report quantize(const Job& job, const Listener& listener = {});

// For a program that is about to exit while quantize() runs: removes what it has written for `output` so far, unless a
// later run can `resume` it. False while the output is put in place: then quantize() is about to return.
bool leave_partial_output(const std::string& output);

struct DeviceSummary {
  std::string name, description;
  int64_t total_bytes = 0, free_bytes = 0;
};
// The devices of this machine that this build supports: accelerators first, the CPU last.
std::vector<DeviceSummary> devices();

}  // namespace gptq
