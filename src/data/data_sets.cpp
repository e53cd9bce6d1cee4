#include "data/data_sets.h"

#include <algorithm>
#include <cctype>
#include <string_view>

#include "base/error.h"

namespace gptq {
namespace {

struct DataSet {
  std::string_view name, loading;  // arguments of load_dataset()
  std::string_view key = {};       // of its records, if it is not one that is found by itself
};

// Those that AutoGPTQ, Optimum, GPTQModel, AutoAWQ, llm-compressor and GPTQ's own scripts know by name.
constexpr DataSet kKnown[] = {
    {"wikitext", "'Salesforce/wikitext', 'wikitext-2-raw-v1', split='train'"},
    {"wikitext2", "'Salesforce/wikitext', 'wikitext-2-raw-v1', split='train'"},
    {"wikitext-2", "'Salesforce/wikitext', 'wikitext-2-raw-v1', split='train'"},
    {"wikitext-2-raw-v1", "'Salesforce/wikitext', 'wikitext-2-raw-v1', split='train'"},
    {"c4", "'allenai/c4', data_files='en/c4-train.00000-of-01024.json.gz', split='train'"},
    {"c4-new", "'allenai/c4', data_files='en/c4-train.00000-of-01024.json.gz', split='train'"},
    {"ptb", "'ptb-text-only/ptb_text_only', revision='refs/convert/parquet', split='train'", "sentence"},
    {"ptb-new", "'ptb-text-only/ptb_text_only', revision='refs/convert/parquet', split='train'", "sentence"},
    {"pileval", "'mit-han-lab/pile-val-backup', split='validation'"},
    {"pile", "'mit-han-lab/pile-val-backup', split='validation'"},
    {"ultrachat", "'HuggingFaceH4/ultrachat_200k', split='train_sft'"},
    {"ultrachat_200k", "'HuggingFaceH4/ultrachat_200k', split='train_sft'"},
    {"ultrachat-200k", "'HuggingFaceH4/ultrachat_200k', split='train_sft'"},
    {"open_platypus", "'garage-bAInd/Open-Platypus', split='train'"},
    {"open-platypus", "'garage-bAInd/Open-Platypus', split='train'"},
    {"alpaca", "'tatsu-lab/alpaca', split='train'"},
    {"gsm8k", "'openai/gsm8k', 'main', split='train'"},
};

// "org/name" in the characters of the Hub, without the ending of a file.
bool is_hub_name(std::string_view name) {
  const size_t slash = name.find('/');
  if (slash == 0 || slash == name.npos || slash + 1 == name.size() || name.find('/', slash + 1) != name.npos)
    return false;
  constexpr std::string_view kEndings[] = {".txt", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".gz", ".parquet"};
  for (const std::string_view ending : kEndings)
    if (name.ends_with(ending)) return false;
  return name.front() != '.' && std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '/' || c == '-' || c == '_' || c == '.';
         });
}

}  // namespace

std::string how_to_get(const std::string& name) {
  std::string lower = name;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  const auto known =
      std::find_if(std::begin(kKnown), std::end(kKnown), [&](const DataSet& set) { return set.name == lower; });
  const bool is_known = known != std::end(kKnown);
  if (!is_known && !is_hub_name(name)) return "";
  const std::string loading = is_known ? std::string(known->loading) : cat("'", name, "', split='train'");
  const std::string file = name.substr(name.rfind('/') + 1) + ".jsonl";
  std::string way = cat("python3 -c \"from datasets import load_dataset; load_dataset(", loading, ").to_json('", file,
                        "')\", then give ", file);
  if (is_known && !known->key.empty()) way += cat(" with its key \"", known->key, "\"");
  return way;
}

}  // namespace gptq
