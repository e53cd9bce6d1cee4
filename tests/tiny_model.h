// A tiny random Llama as a Hugging Face folder, made at run time, for tests that need some whole model.
#pragma once

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "io/checkpoint.h"
#include "temporary_folder.h"

namespace gptq::testing_model {

namespace fs = std::filesystem;

using gptq::TemporaryFolder;

inline std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void write_file(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

struct TinyOptions {
  int64_t hidden = 64, intermediate = 96, blocks = 2, heads = 4, kv_heads = 2, head_dim = 16, vocabulary = 128;
  bool tied = false, bias = false;
};

inline Json tiny_config(const TinyOptions& o = {}) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", o.hidden},
          {"intermediate_size", o.intermediate},
          {"num_hidden_layers", o.blocks},
          {"num_attention_heads", o.heads},
          {"num_key_value_heads", o.kv_heads},
          {"head_dim", o.head_dim},
          {"vocab_size", o.vocabulary},
          {"max_position_embeddings", 256},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"hidden_act", "silu"},
          {"attention_bias", o.bias},
          {"mlp_bias", false},
          {"tie_word_embeddings", o.tied},
          {"torch_dtype", "float32"}};
}

// Name, shape and values of every tensor; a test may change them before it writes the folder.
struct TinyTensor {
  TensorSpec spec;
  std::vector<float> values;
};

inline std::vector<TinyTensor> tiny_tensors(const TinyOptions& o = {}) {
  std::mt19937 random(20);
  std::vector<TinyTensor> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, float deviation, float mean = 0) {
    std::normal_distribution<float> normal(mean, deviation);
    TinyTensor tensor{{name, "F32", std::move(shape)}, {}};
    tensor.values.resize(tensor.spec.bytes() / sizeof(float));
    for (float& value : tensor.values) value = normal(random);
    tensors.push_back(std::move(tensor));
  };
  add("model.embed_tokens.weight", {o.vocabulary, o.hidden}, 1);
  for (int64_t i = 0; i < o.blocks; ++i) {
    const std::string block = "model.layers." + std::to_string(i) + ".";
    add(block + "input_layernorm.weight", {o.hidden}, 0.1F, 1);
    add(block + "post_attention_layernorm.weight", {o.hidden}, 0.1F, 1);
    const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
      add(block + name + ".weight", {out, in}, 1.5F / std::sqrt(static_cast<float>(in)));
      if (bias) add(block + name + ".bias", {out}, 0.1F);
    };
    linear("self_attn.q_proj", o.heads * o.head_dim, o.hidden, o.bias);
    linear("self_attn.k_proj", o.kv_heads * o.head_dim, o.hidden, o.bias);
    linear("self_attn.v_proj", o.kv_heads * o.head_dim, o.hidden, o.bias);
    linear("self_attn.o_proj", o.hidden, o.heads * o.head_dim, o.bias);
    linear("mlp.gate_proj", o.intermediate, o.hidden, false);
    linear("mlp.up_proj", o.intermediate, o.hidden, false);
    linear("mlp.down_proj", o.hidden, o.intermediate, false);
  }
  add("model.norm.weight", {o.hidden}, 0.1F, 1);
  if (!o.tied) add("lm_head.weight", {o.vocabulary, o.hidden}, 0.2F);
  return tensors;
}

inline void write_model(const fs::path& folder, const Json& config, const std::vector<TinyTensor>& tensors) {
  fs::create_directories(folder);
  write_file(folder / "config.json", config.dump(2));
  write_file(folder / "generation_config.json", "{\"eos_token_id\": 0}\n");
  write_file(folder / "LICENSE", "as you like\n");
  std::vector<TensorSpec> specs;
  for (const TinyTensor& tensor : tensors) specs.push_back(tensor.spec);
  SafetensorsWriter writer(folder / "model.safetensors", specs);
  for (const TinyTensor& tensor : tensors) writer.write(tensor.spec.name, tensor.values.data(), tensor.spec.bytes());
  writer.finish();
}

inline void write_tiny_model(const fs::path& folder, const TinyOptions& options = {}) {
  write_model(folder, tiny_config(options), tiny_tensors(options));
}

// `count` lines of `length` random ids below `vocabulary`.
inline void write_ids(const fs::path& file, int64_t count, int64_t length, int64_t vocabulary = 128,
                      unsigned seed = 1) {
  std::mt19937 random(seed);
  std::ofstream out(file);
  for (int64_t i = 0; i < count; ++i) {
    std::vector<int64_t> ids;
    for (int64_t t = 0; t < length; ++t)
      ids.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(vocabulary)));
    out << Json{{"input_ids", ids}}.dump() << "\n";
  }
}

inline std::string bytes_of(const Checkpoint& checkpoint, const std::string& name) {
  const StoredTensor& tensor = checkpoint.tensor(name);
  std::string bytes(tensor.bytes, ' ');
  checkpoint.read(tensor, 0, tensor.bytes, bytes.data());
  return bytes;
}

// Relative paths and contents of all files of a folder, to compare folders byte for byte.
inline std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files[fs::relative(entry.path(), folder).string()] = read_file(entry.path());
  }
  return files;
}

}  // namespace gptq::testing_model
