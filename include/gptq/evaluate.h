// Perplexity, comparison and inspection, for plain and for quantized folders.
#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

#include "gptq/listener.h"
#include "gptq/report.h"

namespace gptq {

struct Evaluation {
  std::string model;
  std::vector<std::string> texts;      // files as Calibration::file, evaluated in turn; at most one is "-"
  std::string device_map, max_memory;  // as those of Job; `disk` is allowed: such modules stream from the checkpoint
  std::string text_key;                // as Calibration::key
  int64_t context = 0;                 // tokens in a window; 0: 2048, or the model's positions where they are fewer
  int64_t windows = 0;                 // of each text at most; 0: all
  int threads = 0;
  std::string precision = "auto";  // as that of Job
  std::string ignore_config_keys;  // as that of Job
  std::stop_token stop;
};

struct Perplexity {
  double perplexity = 0, mean_nll = 0;  // mean_nll: nats per predicted token
  int64_t predicted_tokens = 0, windows = 0;
  double seconds = 0;
};

// Windows of `context` tokens without overlap; exp of the mean loss of each window's context - 1 predictions. One
// result a text, in their order; the model is opened once.
std::vector<Perplexity> perplexity(const Evaluation& evaluation, const Listener& listener = {});

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
                                const Listener& listener = {});

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
  std::vector<std::string> warnings;  // about its files and its config.json
};
Inspection inspect(const std::string& model, std::stop_token stop = {});

// Token ids of each document of `text` (a .txt is one document). text_key: as Calibration::key.
std::vector<std::vector<int32_t>> tokenize(const std::string& model, const std::string& text, std::stop_token stop = {},
                                           const std::string& text_key = {});

}  // namespace gptq
