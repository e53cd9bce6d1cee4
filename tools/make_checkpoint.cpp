// Writes a Hugging Face checkpoint of any Llama shape with random weights, and random calibration ids that need no
// tokenizer: what it takes to see how a run behaves on a model that is too large to carry around.
//   make_checkpoint OUT --shape llama-3-8b [--layers N ...] [--ids FILE --sequences N --length L]
// Memory stays at one piece of a tensor, whatever the model's size; a seed always gives the same bytes.
#include <algorithm>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/stopwatch.h"
#include "gptq/gptq.h"
#include "io/checkpoint.h"
#include "io/checkpoint_writer.h"
#include "io/output_folder.h"
#include "model/specs.h"
#include "tensor/dtype.h"

namespace gptq {
namespace {

// The numbers of a published config.json.
struct Shape {
  std::string name;
  int64_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary, positions;
  double rope_theta;
  bool tied;
};

const Shape kShapes[] = {
    {"tiny", 64, 96, 2, 4, 2, 16, 128, 256, 10000, false},
    {"smollm2-135m", 576, 1536, 30, 9, 3, 64, 49152, 8192, 100000, true},
    {"llama-3.2-1b", 2048, 8192, 16, 32, 8, 64, 128256, 131072, 500000, true},
    {"llama-3-8b", 4096, 14336, 32, 32, 8, 128, 128256, 8192, 500000, false},
    {"llama-3-70b", 8192, 28672, 80, 64, 8, 128, 128256, 8192, 500000, false},
};

struct Options {
  std::string output, shape, config, dtype = "bf16", max_shard_size = "5GB", ids;
  std::optional<int64_t> layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary;
  std::optional<bool> tied;
  int64_t sequences = 4, length = 256, seed = 0;
  bool overwrite = false;
};

void check(const Options& o) {
  const auto within = [](const char* flag, int64_t value, int64_t least, int64_t most) {
    if (value < least || value > most) throw InputError(cat(flag, " ", value, ": must be from ", least, " to ", most));
  };
  within("--seed", o.seed, 0, std::numeric_limits<int64_t>::max());
  within("--sequences", o.sequences, 1, 1'000'000);
  within("--length", o.length, 1, 1'000'000);
}

Shape shape_of(const Options& o) {
  Shape shape =
      *std::find_if(std::begin(kShapes), std::end(kShapes), [&](const Shape& s) { return s.name == o.shape; });
  shape.layers = o.layers.value_or(shape.layers);
  shape.hidden = o.hidden.value_or(shape.hidden);
  shape.intermediate = o.intermediate.value_or(shape.intermediate);
  shape.heads = o.heads.value_or(shape.heads);
  shape.kv_heads = o.kv_heads.value_or(shape.kv_heads);
  shape.head_dim = o.head_dim.value_or(shape.head_dim);
  shape.vocabulary = o.vocabulary.value_or(shape.vocabulary);
  shape.tied = o.tied.value_or(shape.tied);
  return shape;
}

DType dtype_of(const std::string& name) {
  return name == "bf16" ? DType::bf16 : name == "f16" ? DType::f16 : DType::f32;
}

Json config_json(const Shape& shape, DType dtype) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", shape.hidden},
          {"intermediate_size", shape.intermediate},
          {"num_hidden_layers", shape.layers},
          {"num_attention_heads", shape.heads},
          {"num_key_value_heads", shape.kv_heads},
          {"head_dim", shape.head_dim},
          {"vocab_size", shape.vocabulary},
          {"max_position_embeddings", shape.positions},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", shape.rope_theta},
          {"hidden_act", "silu"},
          {"attention_bias", false},
          {"mlp_bias", false},
          {"tie_word_embeddings", shape.tied},
          {"torch_dtype", name_of(dtype)}};
}

// A tensor of values deviation * z, or exp(deviation * z) for norms, z being standard normal.
struct Weight {
  TensorSpec spec;
  double deviation;
  bool norm;
};

// Linears keep the variance of what passes through them, and those that add to the residual stream share one unit of it
// among all blocks, so that activations stay in range however deep the model is. The norms' spread makes some channels
// many times stronger than others, as in trained models: Hessians are not flat.
std::vector<Weight> weights_of(const ModelConfig& config, DType dtype) {
  const std::string stored(safetensors_name(dtype));
  std::vector<Weight> weights;
  std::set<std::string> made;  // experts may share a tensor
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape, double deviation, bool norm) {
    if (made.insert(name).second) weights.push_back({{name, stored, shape}, deviation, norm});
  };
  const auto linear = [&](const LinearSpec& spec, double gain) {
    add(spec.tensor, spec.shape, gain / std::sqrt(static_cast<double>(spec.in_features)), false);
    if (spec.bias) add(spec.bias_tensor, spec.bias_shape, 0.1, false);
  };
  const auto part = [&](const PartSpec& spec) {
    const bool is_list = static_cast<int64_t>(spec.weights.size()) == spec.rows;
    const bool is_router = spec.part == Part::router || spec.part == Part::shared_router;
    const bool is_bias = spec.part == Part::sinks || spec.part == Part::choice_bias;
    for (const std::string& name : spec.weights) {
      const std::vector<int64_t> shape =
          is_list && !is_router ? std::vector<int64_t>{spec.cols} : std::vector<int64_t>{spec.rows, spec.cols};
      if (is_router) {
        add(name, shape, 1 / std::sqrt(static_cast<double>(spec.cols)), false);
      } else if (is_bias || spec.plus_one) {
        add(name, shape, 0.1, false);
      } else {
        add(name, shape, 0.4, true);
      }
    }
    if (!spec.bias.empty()) add(spec.bias, {spec.part == Part::router ? spec.rows : spec.cols}, 0.1, false);
  };
  const auto table = [&](std::string_view module, int64_t rows) {
    add(module_path(config, module) + ".weight", {rows, config.hidden},
        1 / std::sqrt(static_cast<double>(config.hidden)), false);
  };
  const Architecture& row = *config.architecture;
  const double residual = 1 / std::sqrt(2.0 * static_cast<double>(config.blocks));
  table(row.embedding, config.vocabulary);
  if (!row.position_embedding.empty()) table(row.position_embedding, config.max_positions + row.position_offset);
  if (!row.embedding_norm.empty()) part(norm_spec(config, module_path(config, row.embedding_norm), 1, config.hidden));
  for (int64_t i = 0; i < config.blocks; ++i) {
    const std::vector<PartSpec> parts = part_specs(config, i);
    const auto is_of_mlp = [](const PartSpec& spec) {
      return spec.part == Part::mlp_norm || spec.part == Part::mlp_post_norm;
    };
    for (const PartSpec& spec : parts) {
      if (!is_of_mlp(spec)) part(spec);
    }
    bool step_behind_attention = false;
    for (const auto& step : step_specs(config, i)) {
      const StepKind kind = step[0].step;
      for (const PartSpec& spec : parts) {
        if (step_behind_attention && is_of_mlp(spec)) part(spec);
      }
      const bool adds =
          ends_mixer(kind) || kind == StepKind::mlp_out || kind == StepKind::shared_out || kind == StepKind::expert_out;
      for (const LinearSpec& spec : step) linear(spec, adds ? residual : 1);
      step_behind_attention = ends_mixer(kind);
    }
  }
  part(norm_spec(config, module_path(config, row.final_norm), 1, config.hidden));
  if (!config.tied_embeddings) linear(head_spec(config), 1);
  return weights;
}

// Word `i` of the random stream `key`: SplitMix64 (Steele, Lea & Flood, 2014), which needs no state but the counter.
uint64_t random_word(uint64_t key, uint64_t i) {
  uint64_t z = key + (i + 1) * 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

// The standard normal distribution cut into 2^16 equally likely values, so that 16 random bits and one look-up draw
// from it. Each is found by Newton's method from the one before it, where the distribution function is concave: the
// steps never overshoot.
std::vector<float> normal_quantiles() {
  constexpr int64_t half = 1 << 15;
  std::vector<float> quantiles(2 * half);
  double z = 0;
  for (int64_t i = 0; i < half; ++i) {
    const double upper = 0.5 - (static_cast<double>(i) + 0.5) / (2 * half);  // probability of values above
    for (int step = 0; step < 6; ++step) {
      const double density = std::exp(-z * z / 2) * 0.3989422804014327;
      z += (std::erfc(z / std::sqrt(2.0)) / 2 - upper) / density;
    }
    quantiles[half + i] = static_cast<float>(z);
    quantiles[half - 1 - i] = static_cast<float>(-z);
  }
  return quantiles;
}

// Elements [first, first + count) of the tensor whose stream is `key`, drawn from `table`; `first` is a multiple of 4.
template <typename Word>
void draw(const std::vector<Word>& table, uint64_t key, int64_t first, int64_t count, Word* to) {
  for (int64_t i = 0; i < count; i += 4) {
    uint64_t word = random_word(key, static_cast<uint64_t>(first + i) / 4);
    for (int64_t k = i; k < std::min(i + 4, count); ++k, word >>= 16) to[k] = table[word & 0xffffU];
  }
}

// Interrupts wait until somebody asks, so that an unfinished folder is removed on the way out.
class Interrupts {
 public:
  Interrupts() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGINT);
    sigaddset(&set_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }
  void check() const {
    sigset_t pending;
    sigpending(&pending);
    if (sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1) throw Cancelled();
  }

 private:
  sigset_t set_{};
};

// Draws the weights and hands them to the writer piece by piece. Word holds the bits of one element.
template <typename Word>
void write_weights(const std::vector<Weight>& weights, DType dtype, uint64_t seed, const Interrupts& interrupts,
                   CheckpointWriter& writer) {
  constexpr int64_t elements_at_once = 1 << 21;
  const std::vector<float> quantiles = normal_quantiles();
  std::vector<Word> table(quantiles.size()), piece(elements_at_once);
  for (size_t i = 0; i < weights.size(); ++i) {
    const Weight& weight = weights[i];
    std::transform(quantiles.begin(), quantiles.end(), table.begin(), [&](float z) -> Word {
      const double scaled = weight.deviation * z;
      const auto value = static_cast<float>(weight.norm ? std::exp(scaled) : scaled);
      if constexpr (sizeof(Word) == sizeof(float)) {
        return std::bit_cast<Word>(value);
      } else {
        return dtype == DType::bf16 ? Bf16(value).bits : Half(value).bits;
      }
    });
    const uint64_t key = random_word(seed, i);
    const auto elements = static_cast<int64_t>(weight.spec.bytes() / sizeof(Word));
    for (int64_t first = 0; first < elements; first += elements_at_once) {
      interrupts.check();
      const int64_t count = std::min(elements_at_once, elements - first);
      draw(table, key, first, count, piece.data());
      writer.write_part(weight.spec.name, static_cast<size_t>(first) * sizeof(Word), piece.data(),
                        static_cast<size_t>(count) * sizeof(Word));
    }
  }
}

// One {"input_ids": [...]} a line.
void write_ids(const Options& o, int64_t vocabulary) {
  std::ofstream file(o.ids, std::ios::trunc);
  const uint64_t key = random_word(static_cast<uint64_t>(o.seed), ~uint64_t{0});  // no tensor has this number
  for (int64_t s = 0; s < o.sequences; ++s) {
    std::vector<uint64_t> ids(static_cast<size_t>(o.length));
    for (int64_t t = 0; t < o.length; ++t) {
      ids[static_cast<size_t>(t)] =
          random_word(key, static_cast<uint64_t>(s * o.length + t)) % static_cast<uint64_t>(vocabulary);
    }
    file << Json{{"input_ids", ids}}.dump() << "\n";
  }
  if (!file.flush()) throw InputError(cat("--ids ", o.ids, ": the file cannot be written"));
}

void make_checkpoint(const Options& o, const Interrupts& interrupts) {
  check(o);
  const Stopwatch watch;
  const DType dtype = dtype_of(o.dtype);
  if (o.shape.empty() == o.config.empty()) throw InputError("give either --shape or --config");
  const Json json = o.config.empty() ? config_json(shape_of(o), dtype) : read_json(o.config);
  const ModelConfig config = parse_model_config(json, o.output);
  const std::vector<Weight> weights = weights_of(config, dtype);
  std::vector<TensorSpec> specs;
  specs.reserve(weights.size());
  for (const Weight& weight : weights) specs.push_back(weight.spec);

  // No model is read, so the output may lie anywhere; the writer wants a source to keep away from.
  OutputFolder output(o.output, "/dev/null", {.overwrite = o.overwrite});
  const auto shard_bytes = static_cast<size_t>(parse_bytes(o.max_shard_size));
  output.check_room(CheckpointWriter::output_bytes(specs, shard_bytes));
  CheckpointWriter writer(output.model(), std::move(specs), shard_bytes);
  if (!o.ids.empty()) write_ids(o, config.vocabulary);
  const auto seed = static_cast<uint64_t>(o.seed);
  if (dtype == DType::f32) {
    write_weights<uint32_t>(weights, dtype, seed, interrupts, writer);
  } else {
    write_weights<uint16_t>(weights, dtype, seed, interrupts, writer);
  }
  writer.write_file("config.json", json.dump(2) + "\n");
  const double drawn = watch.seconds();
  writer.finish();
  for (const std::string& remark : output.put_in_place()) std::fprintf(stderr, "make_checkpoint: %s\n", remark.c_str());
  const auto bytes = static_cast<double>(writer.output_bytes());
  std::printf("%s: %s in %zu tensors; %.1f s to write (%s/s), %.1f s to reach the disk\n", o.output.c_str(),
              format_bytes(bytes).c_str(), weights.size(), drawn, format_bytes(bytes / drawn).c_str(),
              watch.seconds() - drawn);
}

int run(int argc, char** argv) {
  CLI::App app("Hugging Face checkpoints of any shape and family with random weights", "make_checkpoint");
  Options o;
  std::vector<std::string> shapes;
  for (const Shape& shape : kShapes) shapes.push_back(shape.name);
  app.add_option("OUT", o.output, "folder to write")->required();
  app.add_option("--shape", o.shape, "a Llama of these sizes; single options override them")
      ->check(CLI::IsMember(shapes));
  app.add_option("--config", o.config, "a config.json of any family, instead of --shape");
  app.add_option("--layers", o.layers, "blocks");
  app.add_option("--hidden", o.hidden, "hidden_size");
  app.add_option("--intermediate", o.intermediate, "intermediate_size");
  app.add_option("--heads", o.heads, "num_attention_heads");
  app.add_option("--kv-heads", o.kv_heads, "num_key_value_heads");
  app.add_option("--head-dim", o.head_dim, "head_dim");
  app.add_option("--vocabulary", o.vocabulary, "vocab_size");
  app.add_flag_callback(
      "--tied", [&] { o.tied = true; }, "the head is the embedding");
  app.add_flag_callback(
         "--untied", [&] { o.tied = false; }, "the head has weights of its own")
      ->excludes("--tied");
  app.add_option("--dtype", o.dtype, "bf16, f16 or f32")
      ->check(CLI::IsMember({"bf16", "f16", "f32"}))
      ->capture_default_str();
  app.add_option("--max-shard-size", o.max_shard_size, "of one safetensors file")->capture_default_str();
  app.add_option("--seed", o.seed, "of all weights and ids")->capture_default_str();
  app.add_flag("--overwrite", o.overwrite, "replace OUT once the new one is whole");
  CLI::Option* ids = app.add_option("--ids", o.ids, "calibration file to write: random input_ids, .jsonl");
  app.add_option("--sequences", o.sequences, "lines of --ids")->needs(ids)->capture_default_str();
  app.add_option("--length", o.length, "tokens of a line")->needs(ids)->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    std::fprintf(stderr, "make_checkpoint: %s (see make_checkpoint --help)\n", error.what());
    return 2;
  }
  const Interrupts interrupts;
  try {
    make_checkpoint(o, interrupts);
    return 0;
  } catch (const Cancelled&) {
    std::fputs("make_checkpoint: interrupted\n", stderr);
    return 130;
  } catch (const InputError& error) {
    std::fprintf(stderr, "make_checkpoint: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "make_checkpoint: %s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace gptq

int main(int argc, char** argv) { return gptq::run(argc, argv); }
