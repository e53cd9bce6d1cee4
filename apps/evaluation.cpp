// gptq eval and gptq compare: what they print, as text, JSON and CSV.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "commands.h"
#include "inputs.h"
#include "options.h"
#include "output_file.h"
#include "printing.h"
#include "terminal.h"

namespace gptq {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const Perplexity& result) {
  return {{"perplexity", result.perplexity},
          {"mean_nll", result.mean_nll},
          {"predicted_tokens", result.predicted_tokens},
          {"windows", result.windows},
          {"seconds", result.seconds}};
}

double percent_change(const Comparison& comparison) { return 100 * std::expm1(comparison.loss_change); }
// The standard error of percent_change, from that of its logarithm.
double percent_error(const Comparison& comparison) {
  return 100 * std::exp(comparison.loss_change) * comparison.loss_change_error;
}

Json to_json(const Comparison& comparison) {
  Json positions = {{"position", Json::array()},
                    {"windows", Json::array()},
                    {"loss_model", Json::array()},
                    {"loss_quantized", Json::array()},
                    {"kl", Json::array()}};
  for (size_t i = 0; i < comparison.positions.size(); ++i) {
    const Comparison::Position& position = comparison.positions[i];
    positions["position"].push_back(i + 1);
    positions["windows"].push_back(position.windows);
    positions["loss_model"].push_back(position.model_nll);
    positions["loss_quantized"].push_back(position.quantized_nll);
    positions["kl"].push_back(position.kl);
  }
  return {{"text", comparison.text},
          {"model", to_json(comparison.model)},
          {"quantized", to_json(comparison.quantized)},
          {"change_percent", percent_change(comparison)},
          {"change_percent_error", percent_error(comparison)},
          {"mean_kl", comparison.mean_kl},
          {"kl_99", comparison.kl_99},
          {"max_kl", comparison.max_kl},
          {"same_top", comparison.same_top},
          {"positions", std::move(positions)}};
}

// A field of a CSV file (RFC 4180).
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == text.npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string positions_csv(const std::vector<Comparison>& comparisons) {
  std::string csv = "text,position,loss_model,loss_quantized,kl\n";
  for (const Comparison& comparison : comparisons) {
    const std::string text = csv_field(comparison.text);
    for (size_t i = 0; i < comparison.positions.size(); ++i) {
      const Comparison::Position& position = comparison.positions[i];
      char figures[128];
      std::snprintf(figures, sizeof figures, ",%zu,%.9g,%.9g,%.9g\n", i + 1, position.model_nll, position.quantized_nll,
                    position.kl);
      csv += text + figures;
    }
  }
  return csv;
}

void print_table(const std::vector<Comparison>& comparisons) {
  int width = 4;
  for (const Comparison& comparison : comparisons)
    width = std::max(width, static_cast<int>(printable(comparison.text).size()));
  print("%-*s  %10s  %10s  %20s  %10s  %10s  %10s  %10s\n", width, "text", "perplexity", "quantized", "change",
        "mean KL", "99 % of KL", "same top", "tokens");
  for (const Comparison& comparison : comparisons) {
    char change[48];
    std::snprintf(change, sizeof change, "%+.2f %% +- %.2f", percent_change(comparison), percent_error(comparison));
    print("%-*s  %10.4f  %10.4f  %20s  %10.5f  %10.5f  %8.2f %%  %10lld\n", width, comparison.text,
          comparison.model.perplexity, comparison.quantized.perplexity, change, comparison.mean_kl, comparison.kl_99,
          100 * comparison.same_top, static_cast<long long>(comparison.model.predicted_tokens));
  }
}

void refuse_to_replace_inputs(const EvaluationOptions& options) {
  std::error_code ignored;  // what is not there is not read
  Inputs inputs;
  for (const std::string& text : options.evaluation.texts) inputs.add_file("the text", text);
  if (std::filesystem::is_regular_file(options.evaluation.device_map, ignored))
    inputs.add_file("the device map", options.evaluation.device_map);
  inputs.add_folder("the model", options.evaluation.model);
  inputs.add_folder("the model", options.quantized);
  inputs.refuse_file("positions", options.positions_file);
}

}  // namespace

void add_evaluation_options(CLI::App& command, EvaluationOptions& o) {
  command.add_option("--text", o.evaluation.texts, std::string(kTextHelp) + "; repeatable")
      ->required()
      ->allow_extra_args(false);
  o.given.add_to(command);
  command.add_flag("--json", o.json, "print the result as JSON on stdout, nothing else there");
  command.add_flag("--quiet", o.quiet, "no progress");
}

void add_comparison_options(CLI::App& command, EvaluationOptions& options) {
  add_evaluation_options(command, options);
  command.add_option("--positions", options.positions_file,
                     "CSV file for losses and KL at each position of the window, to plot");
}

void run_eval(EvaluationOptions& options, std::stop_token stop) {
  options.given.apply(options.evaluation);
  options.evaluation.stop = stop;
  Terminal terminal(options.quiet ? Terminal::Verbosity::quiet : Terminal::Verbosity::normal);
  const std::vector<Perplexity> results = perplexity(options.evaluation, terminal.listener());
  terminal.end_bar();
  const bool several = results.size() > 1;
  Json json = {{"texts", Json::array()}};
  for (size_t i = 0; i < results.size(); ++i) {
    const Perplexity& result = results[i];
    const std::string& text = options.evaluation.texts[i];
    if (options.json) {
      Json entry = {{"text", text}};
      entry.update(to_json(result));
      json["texts"].push_back(std::move(entry));
      continue;
    }
    print("%sperplexity %.4f (mean loss %.5f nats over %lld predicted tokens in %lld windows, %.1f s)\n",
          several ? text + ": " : "", result.perplexity, result.mean_nll,
          static_cast<long long>(result.predicted_tokens), static_cast<long long>(result.windows), result.seconds);
  }
  if (options.json) print_json(text_of(several ? json : json["texts"][0]));
}

void run_compare(EvaluationOptions& options, std::stop_token stop) {
  options.given.apply(options.evaluation);
  options.evaluation.stop = stop;
  refuse_to_replace_inputs(options);
  OutputFile positions("positions", options.positions_file);
  Terminal terminal(options.quiet ? Terminal::Verbosity::quiet : Terminal::Verbosity::normal);
  const std::vector<Comparison> results = compare(options.evaluation, options.quantized, terminal.listener());
  terminal.end_bar();
  const std::string warning = disagreement(results);
  if (options.json) {
    Json json = {{"folders", {{"model", options.evaluation.model}, {"quantized", options.quantized}}},
                 {"texts", Json::array()},
                 {"disagreement", warning.empty() ? Json() : Json(warning)}};
    for (const Comparison& result : results) json["texts"].push_back(to_json(result));
    print_json(text_of(json));
  } else {
    print_table(results);
    if (!warning.empty()) print("warning: %s\n", warning);
  }
  finish_stdout();
  if (positions.is_wanted()) positions.write(positions_csv(results), "what was printed is complete");
}

}  // namespace gptq
