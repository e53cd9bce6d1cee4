// Writes docs/families.md: each row of the table of architectures, how far its golden checkpoints are from
// transformers, and the names of what is quantized.
//   family_table tests/golden/families tests/golden/models > docs/families.md
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "base/error.h"
#include "model/model.h"
#include "model/refused_families.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

struct Proof {
  std::vector<std::string> cases;
  double difference = 0;  // largest of logits, relative to their root mean square
  std::string names;      // of linears in a block
};

double difference_of(const fs::path& folder) {
  const Checkpoint checkpoint(folder);
  const SafetensorsFile golden(folder / "golden.safetensors");
  std::map<std::string, Matrix> answers;
  for (const StoredTensor& tensor : golden.tensors()) answers.emplace(tensor.name, golden.load(tensor));
  const ConstMatrixView ids = answers.at("input_ids");
  std::vector<std::vector<int32_t>> sequences;
  for (int64_t s = 0; s < ids.rows; ++s) sequences.emplace_back(ids.row<int32_t>(s), ids.row<int32_t>(s) + ids.cols);
  const auto backend = open_backend("cpu");
  Model model(checkpoint, *backend, DType::f32);
  Batch batch = model.embed(sequences);
  for (int64_t block = 0; block < model.config().blocks; ++block) model.forward(model.load_block(block), batch);
  const Matrix logits = model.output_head().logits(batch, 0, batch.tokens());
  const Matrix& want = answers.at("logits");
  double largest = 0, squares = 0;
  for (int64_t r = 0; r < want.rows(); ++r) {
    for (int64_t c = 0; c < want.cols(); ++c) {
      const double value = want.row<float>(r)[c];
      largest = std::max(largest, std::abs(value - static_cast<double>(logits.row<float>(r)[c])));
      squares += value * value;
    }
  }
  return largest / std::sqrt(squares / static_cast<double>(want.view().size()));
}

// "q_proj, k_proj, v_proj; o_proj; ...": relative to a block, '#' for an expert's number.
std::string names_of(const ModelConfig& config) {
  std::vector<std::string> steps;
  for (int64_t block = 0; block < config.blocks; ++block) {
    const size_t prefix = block_module(config, block).size() + 1;
    for (const auto& linears : step_specs(config, block)) {
      if (linears[0].expert > 0) continue;
      std::string step;
      for (const LinearSpec& linear : linears) {
        std::string name = linear.name.substr(prefix);
        if (linear.expert == 0) name.replace(name.find(".0") + 1, 1, "#");
        step += cat(step.empty() ? "" : ", ", "`", name, "`");
      }
      if (std::find(steps.begin(), steps.end(), step) == steps.end()) steps.push_back(step);
    }
  }
  std::string text;
  for (const std::string& step : steps) text += cat(text.empty() ? "" : "; ", step);
  return text;
}

std::string joined(const auto& words) {
  std::string text;
  for (const auto& word : words) text += cat(text.empty() ? "" : ", ", word);
  return text;
}

// "120 of the 196 names ...": those of rows, and of golden checkpoints with several parts.
std::string count_line(const fs::path& names, const std::set<std::string, std::less<>>& covered) {
  std::ifstream file(names);
  int64_t count = 0, all = 0;
  for (std::string name; std::getline(file, name); ++all) count += covered.count(name) != 0 ? 1 : 0;
  return cat(all, " names; ", count, " of the ", all, " names are covered,");
}

// A row of a table for each reason.
std::string refused_lines(const std::set<std::string, std::less<>>& covered) {
  std::string text;
  for (const RefusedFamilies& families : refused_families()) {
    std::vector<std::string_view> names;
    for (const std::string_view name : families.model_types) {
      if (covered.find(name) == covered.end()) names.push_back(name);
    }
    if (!names.empty()) text += cat("| ", joined(names), " | ", families.reason, " |\n");
  }
  return text;
}

std::string lacks_of(const Architecture& row) {
  std::string text;
  for (const Lack& lack : row.lacking)
    text += cat(text.empty() ? "" : ", ", lack.loader, lack.reason.empty() ? "" : cat(" (", lack.reason, ")"));
  return text;
}

void run(int argc, char** argv) {
  std::map<const Architecture*, Proof> proofs;
  std::set<std::string, std::less<>> covered;
  for (int i = 1; i < argc; ++i) {
    std::vector<fs::path> folders;
    for (const auto& entry : fs::directory_iterator(argv[i])) {
      if (entry.is_directory()) folders.push_back(entry.path());
    }
    std::sort(folders.begin(), folders.end());
    for (const fs::path& folder : folders) {
      const Checkpoint checkpoint(folder);
      const ModelConfig config = parse_model_config(checkpoint);
      covered.insert(checkpoint.config().at("model_type").get<std::string>());
      Proof& proof = proofs[config.architecture];
      proof.cases.push_back(folder.filename().string());
      proof.difference = std::max(proof.difference, difference_of(folder));
      if (proof.names.empty()) proof.names = names_of(config);
    }
  }
  std::printf(R"(# Model families

Each row of the tables in `src/model/*architectures.cpp` is a family, or a kind of model if one `model_type` has several. A row is tested with tiny random checkpoints of its kind, for which transformers has computed the results in float32
(`tests/golden/families/make.py`). The test `GoldenModel` compares every block, the logits and the loss, and fails for a row without a
checkpoint. *Logits* is the largest difference from transformers' logits among them, relative to their root mean square. *Quantized* lists
the linears by their names within a block; those of one step, between semicolons, share a Hessian. `#` is an expert's number.
Embeddings, norms, routers and the towers of multimodal models are not quantized, nor are convolutions and the parameters of state spaces:
`A_log`, `D`, `dt_bias`, and Mamba's small `x_proj` and `dt_proj`. Gates with one feature for each head are kept too.

This file is written by

    build/release/tools/family_table tests/golden/families tests/golden/models > docs/families.md

| `model_type` | models | golden checkpoints | logits | quantized | not in |
|---|---|---|---|---|---|
)");
  for (const Architecture& row : architectures()) {
    covered.insert(row.model_types.begin(), row.model_types.end());
    const Proof& proof = proofs[&row];
    std::printf("| %s | %s | %s | %.1e | %s | %s |\n", joined(row.model_types).c_str(), std::string(row.models).c_str(),
                joined(proof.cases).c_str(), proof.difference, proof.names.c_str(), lacks_of(row).c_str());
  }
  std::printf(R"(
*Not in* lists loaders that have no class for the family, or that do not load it, with the reason: transformers 5.23 with Optimum 2.3 (models
without a class need the code of their repository), GPTQModel 7.7, and vLLM (`models/registry.py` of early 2026, of 0.32 for the families since; not run; its
transformers backend may still run them). transformers stores the experts of a block in one tensor, so quantized experts need GPTQModel or vLLM.
`interop/families.py` tests GPTQModel and transformers. `gptq inspect` lists the loaders that accept a quantized folder.

## Not supported, and why

transformers 5.24 has causal language models under %s counted by `tools/count_families.py`. These have no row:

| `model_type` | what it has |
|---|---|
%s
Of families with a row, these models are not supported:

* OPT-350M: it has norms after the additions, and projected embeddings; no other model does.
* BLOOM with `apply_residual_connection_post_layernorm`: no released model has it.
* MPT with `qk_ln`, without ALiBi, or of other attention kinds: transformers does not support these either.
* Llama 3.1 Nemotron 51B: a linear is in the place of attention, or of the MLP, in some of its blocks.
* Nemotron 3 with `moe_latent_size`: its experts read a projection of the hidden states.
* Falcon-H1 with biases and multipliers of their inputs other than 1 at once.

## Differences from transformers

* Falcon RW: transformers rounds ALiBi's bias to bfloat16; here it is exact. Both are equal if the bias has at most eight significant bits.
* DeepSeek-V2: routing weights are never renormalized, as in transformers; released models do not need it.
)",
              count_line(fs::path(argv[1]).parent_path() / "transformers_names.txt", covered).c_str(),
              refused_lines(covered).c_str());
}

}  // namespace
}  // namespace gptq

int main(int argc, char** argv) {
  try {
    gptq::run(argc, argv);
    return 0;
  } catch (const gptq::Error& error) {
    std::fprintf(stderr, "family_table: %s\n", error.what());
    return 2;
  }
}
