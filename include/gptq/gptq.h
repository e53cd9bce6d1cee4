// The public API of gptq.cpp: a Hugging Face model folder in, a GPTQ folder out. The library never prints and never
// exits; it throws gptq::Error (gptq/error.h).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "gptq/error.h"

namespace gptq {

enum class Method : uint8_t { gptq, rtn };                      // rtn: round to nearest, no calibration
enum class ScaleSearch : uint8_t { diag, mse, minmax };         // diag: errors weighted with the Hessian's diagonal
enum class Order : uint8_t { diagonal, group_aware, natural };  // of the columns; never visible in the file
// What the codes are to reproduce: the weights; or weights that make up for what the blocks before have lost, exactly
// (W + alpha W dC inv(H), as Qronos, arXiv 2505.11695) or as GPTAQ has it (arXiv 2504.02692).
enum class Targets : uint8_t { weights, corrected, gptaq };
// automatic: gptq when sym, gptq_v2 otherwise. compressed_tensors: its pack-quantized form, of 4 and 8 bits.
enum class CheckpointFormat : uint8_t { automatic, gptq, gptq_v2, compressed_tensors };

// What a recipe changes for the modules whose full names a pattern matches: GPTQModel's `dynamic`.
struct ModuleRule {
  std::string pattern;  // a regular expression, matched at the start of names such as "model.layers.0.mlp.down_proj"
  bool skip = false;    // they stay as they are
  std::optional<int> bits;
  std::optional<int64_t> group_size;
  std::optional<bool> sym, desc_act;
};

// How weights become codes. Names and meanings are those of Optimum's GPTQQuantizer where it has them.
struct Recipe {
  Method method = Method::gptq;
  int bits = 4;              // 2, 3, 4 or 8
  double average_bits = 0;   // 0: `bits`; else bits are measured and chosen step by step, so many on average
  int64_t group_size = 128;  // inputs that share a scale; -1: all
  bool sym = true;
  ScaleSearch scale_search = ScaleSearch::diag;
  Order order = Order::diagonal;
  bool static_groups = true;   // all scales before the first column; false: a group's scale when its first column comes
  bool desc_act = false;       // falling diagonal with groups in that order: shuffled g_idx
  double damp_percent = 0.01;  // of the Hessian's mean diagonal, added to the diagonal
  bool true_sequential = true;
  std::vector<std::vector<std::string>> modules_in_block_to_quantize;  // {{"self_attn.q_proj", ...}, ...}; empty: all
  CheckpointFormat checkpoint_format = CheckpointFormat::automatic;
  // Symmetric scales may be negative: code 0 then stands for the largest weight. Empty: at 2 and 3 bits.
  std::optional<bool> signed_scales;
  Targets targets = Targets::weights;  // others take a second stream of states through the unquantized blocks
  std::optional<double> alpha;         // share of the correction; empty: 0.5, at 2 bits 0.25
  // What follows the columns, in this order: "r" refits the scales to the codes, "cN" is N sweeps of coordinate descent
  // over the codes: "r c2 r". "none": nothing. Empty: "c4" at 3 bits, "r c2 r c2 r" at 2, else nothing.
  std::string refine;
  bool lm_head = false;  // the output head too; refused where it is the embedding
  // An expert that the calibration gives fewer tokens is quantized with what it would do to all tokens, and reported.
  int64_t expert_tokens = 256;
  bool moe_calibrate_all_experts = false;  // every token counts for every expert, in the statistics only
  std::vector<ModuleRule> dynamic;         // the first that matches a module counts
};

// "default" (the measured best of one stream), "best" (with corrected targets), "paper" (Frantar et al., 2022) or
// "group-aware" (GPTQModel's default).
Recipe recipe_preset(const std::string& name);

// A recipe file: a JSON object of Recipe's fields by their names, `dynamic` as GPTQModel writes it ({"pattern":
// {"bits": 8}, "-:pattern": {}}), perhaps a `preset`. What it does not name is that preset's, or `base`'s where it
// names none. A quantize_config.json is such a file. Throws InputError that names the file and the key.
Recipe read_recipe(const std::string& file, const Recipe& base = {});

struct Calibration {
  std::string
      file;  // .txt, .jsonl or "-" for stdin; empty: calibration.txt beside the model's folder, where there is one
  int64_t samples = 128, sequence_length = 2048;  // a sequence is cut to the model's positions
  uint64_t seed = 0;
};

struct Job {
  std::string model, output;
  Calibration calibration;
  Recipe recipe;
  // Which device each module is given to: a JSON object, a file that holds one, a device for all, or auto, balanced,
  // balanced_low_0, sequential. Empty: the current accelerator, the CPU where there is none.
  std::string device_map;
  std::string max_memory;     // JSON: {"cuda:0": "20GiB", "cpu": "64GiB"}; empty: what the devices have
  std::string spill_dir;      // folder for states that find no room in memory; empty: they must fit
  int64_t max_read_rate = 0;  // bytes a second read from the model's disk; 0: no limit
  int64_t batch_size = 0;     // sequences at a time; 0: about 2048 tokens, 8192 on a GPU or with AMX
  int threads = 0;            // 0: all cores
  // What the forward pass computes in: fp32, bf16 or fp16; auto: the checkpoint's dtype where the device is fast in it.
  std::string precision = "auto";
  int64_t max_shard_bytes = 5'000'000'000;
  std::string loader;  // what must take the output: vllm, sglang, transformers, gptqmodel or exllamav2; empty: nothing
  bool overwrite = false;
  std::stop_token stop;  // ask to end: Cancelled is thrown, nothing is left behind
};

struct Progress {
  enum class Kind : uint8_t { message, warning, step } kind = Kind::step;
  std::string text;               // message, warning; for a step its linears: "q_proj,k_proj,v_proj"
  int64_t block = 0, blocks = 0;  // the block at work, from 0
  double fraction = 0;            // of the whole job's arithmetic
  double loss = 0;                // of the linear solved last
  double tokens_per_second = 0;   // tokens that passed a whole block
  double seconds = 0, remaining_seconds = 0;
  int64_t memory_bytes = 0;  // resident now
};
using ProgressFunction = std::function<void(const Progress&)>;

struct LinearReport {
  std::string name;
  int64_t block = -1, expert = -1;  // -1: of no block, of no expert
  int64_t rows = 0, cols = 0;       // out_features, in_features
  int bits = 0;
  int64_t group_size = 0;
  double loss =
      0;  // mean over tokens of |(T - Q) x|^2 (gptq; T is what the codes reproduce), mean square of W - Q (rtn)
  double error = 0;  // the same relative to |W x|^2, or to W's mean square
  // The loss after each stage: "rounded" (each weight to the nearest code), "columns", "refit", "sweep".
  std::vector<std::pair<std::string, double>> stages;
  double target_shift = 0;  // |(T - W) x|^2 relative to |W x|^2
  int64_t tokens = 0;       // that the Hessian has seen
  int64_t routed = -1;      // of an expert: the tokens its router gave it; fewer than `tokens` where those were too few
  struct Scales {
    double least = 0, median = 0, largest = 0;  // magnitudes
    double negative = 0;                        // share of them
  } scales;
  double damp_percent = 0;  // what the factorization took in the end
  int64_t dead_columns = 0;
};

struct LoaderVerdict {
  std::string loader, reason;  // reason: empty where it is accepted without a remark
  bool accepts = false;
};

// What a job will take, worked out from the headers of the model's files, by a run on devices that only count.
struct Plan {
  struct Device {
    std::string name, description;
    int64_t peak_bytes = 0, limit_bytes = 0;  // limit: of --max-memory, or what the device has
  };
  struct Unit {
    std::string module, computes_on, stays;  // stays: the map's device, "cpu" or "disk"
    int64_t bytes = 0;                       // of its weights as stored
    bool visits = false;                     // comes from the CPU for its turn, alone
  };
  std::string model, output, device_map, compute_dtype, checkpoint_format;
  std::string states;                // where hidden states wait: "device", "host" or "spill"
  bool keeps_inputs = true;          // beside the residuals; otherwise steps' inputs are computed once more
  std::vector<Device> accelerators;  // that compute
  Device host;                       // all of this process's memory
  std::vector<Unit> units;
  bool read_ahead = true;  // the next block is read while this one computes
  int64_t sequences = 0, tokens = 0;
  int64_t sequences_at_once = 0;  // that pass a step together at most; fewer where memory is short
  int64_t spill_bytes = 0, source_bytes = 0, output_bytes = 0, quantized_weights = 0;
  double bits_per_weight = 0;
  double seconds = 0;                                         // 0: not estimated
  std::vector<std::pair<std::string, double>> stage_seconds;  // where they go, the longest first
  std::vector<LoaderVerdict> loaders;
  std::vector<std::string> messages, warnings;  // what the rules of device maps, offload and precision say
};

// Throws InputError for a job that cannot run: it says what does not fit, and the smallest that would.
Plan plan(const Job& job);

std::string to_json(const Plan& plan);

// Linears that read one input and got one width.
struct BitChoice {
  std::vector<std::string> linears;
  int bits = 0;
  // What each width costs the model's predictions, estimated from what the least one does to them: KL in nats a token.
  std::vector<std::pair<int, double>> divergence;
};

struct Report {
  std::string model, output, device, compute_dtype, checkpoint_format, device_map, states;
  Recipe recipe;
  std::vector<LinearReport> linears;
  std::vector<BitChoice> bit_choices;  // for Recipe::average_bits
  double average_bits = 0;             // of the blocks' codes
  int64_t sequences = 0, tokens = 0, dropped_rows = 0;
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
  Plan plan;  // what was expected
  std::vector<std::string> warnings;
};

Report quantize(const Job& job, const ProgressFunction& progress = {});

// Removes what a quantize() of this process that cannot end in time has written beside `output` so far: for a program
// that is about to exit.
void remove_partial_output(const std::string& output);

std::string to_json(const Report& report);

struct DeviceSummary {
  std::string name, description;
  int64_t total_bytes = 0, free_bytes = 0;
};
// What this machine has for this build: accelerators first, the CPU last.
std::vector<DeviceSummary> devices();

struct Evaluation {
  std::string model;
  std::vector<std::string> texts;      // files as Calibration::file, evaluated in turn; at most one is "-"
  std::string device_map, max_memory;  // as those of Job; `disk` is allowed: such modules stream from the checkpoint
  int64_t context = 0;                 // tokens in a window; 0: 2048, or the model's positions where they are fewer
  int64_t windows = 0;                 // of each text at most; 0: all
  int threads = 0;
  std::string precision = "auto";  // as that of Job
  std::stop_token stop;
};

struct Perplexity {
  double perplexity = 0, mean_nll = 0;  // mean_nll: nats per predicted token
  int64_t predicted_tokens = 0, windows = 0;
  double seconds = 0;
};

// Windows of `context` tokens without overlap; exp of the mean loss of each window's context - 1 predictions. One
// result a text, in their order; the model is opened once.
std::vector<Perplexity> perplexity(const Evaluation& evaluation, const ProgressFunction& progress = {});

// Two models on one text. Losses and KL(model || quantized) in nats per predicted token.
struct Comparison {
  // Means over the windows that reach a position.
  struct Position {
    int64_t windows = 0;
    double model_nll = 0, quantized_nll = 0, kl = 0;
  };
  std::string text;              // as Evaluation::texts has it
  Perplexity model, quantized;   // seconds: of both together
  double loss_change = 0;        // quantized - model: the logarithm of the ratio of their perplexities
  double loss_change_error = 0;  // standard error of loss_change, tokens taken as independent
  double mean_kl = 0;
  double kl_99 = 0;  // 99 % of the tokens have this KL or less
  double max_kl = 0;
  double same_top = 0;              // share of tokens where both have one most likely next token
  std::vector<Position> positions;  // [i]: predictions of a window's token i + 1 from those before it
};

// Both models on the same tokens, as the first model's tokenizer makes them. One result a text, in their order; both
// models are opened once.
std::vector<Comparison> compare(const Evaluation& evaluation, const std::string& quantized,
                                const ProgressFunction& progress = {});

// A sentence that names two texts which judge the quantized model differently: its perplexity is clearly higher on one
// (2 % or more) and at most a third as much, or not at all, on another, by more than two standard errors of the
// difference. Empty where no two do.
std::string disagreement(const std::vector<Comparison>& comparisons);

struct Inspection {
  struct Module {
    std::string name, dtype;  // dtype as stored: "BF16", "F8_E4M3"; "gptq" or "compressed-tensors"
    std::vector<int64_t> shape;
    int bits = 0;  // 0: not quantized
    int64_t group_size = 0, bytes = 0;
  };
  std::string model, model_type, checkpoint_format;  // format: empty where not quantized
  int64_t blocks = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, intermediate = 0, vocabulary = 0,
          parameters = 0, bytes = 0;
  bool tied_embeddings = false, sym = true, desc_act = false, signed_scales = false;
  int bits = 0;
  int64_t group_size = 0;
  std::vector<Module> modules;
  std::vector<LoaderVerdict> loaders;
};
Inspection inspect(const std::string& model);

// Token ids of each document of `text` (a .txt is one document).
std::vector<std::vector<int32_t>> tokenize(const std::string& model, const std::string& text);

// `tokens` most likely next tokens after the prompt, one after the other; returns their text.
std::string generate(const std::string& model, const std::string& prompt, int64_t tokens, int threads = 0);

int64_t parse_bytes(const std::string& text);  // "5GB", "800MiB", "123"; throws InputError
std::string format_bytes(double bytes);        // "1.23 GB" (powers of 1000, as file sizes are)
std::string version();

}  // namespace gptq
