// Changes JSON trees at random, for mutators whose inputs should stay JSON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "io/json.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace gptq::fuzz {

using Random = std::minstd_rand;

inline size_t below(size_t count, Random& random) { return random() % count; }

inline std::optional<Json> parsed(std::string_view text) {
  if (find_deeper(text) != text.npos) return {};  // trees are copied by recursion
  Json tree = Json::parse(text, nullptr, false);
  if (tree.is_discarded() || !tree.is_structured()) return {};
  return tree;
}

inline std::string text_of(const Json& tree) { return tree.dump(-1, ' ', false, Json::error_handler_t::replace); }

inline void collect(Json& node, std::vector<Json*>& nodes) {
  nodes.push_back(&node);
  if (node.is_structured())
    for (Json& child : node) collect(child, nodes);
}

inline Json& any_node(Json& tree, Random& random) {
  std::vector<Json*> nodes;
  collect(tree, nodes);
  return *nodes[below(nodes.size(), random)];
}

inline std::string mutated(std::string text, size_t most, Random& random) {
  const size_t size = text.size();
  text.resize(size + 1 + below(most, random));
  text.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(text.data()), size, text.size()));
  return text;
}

inline Json any_value(Random& random) {
  switch (below(10, random)) {
    case 0:
      return nullptr;
    case 1:
      return below(2, random) == 0;
    case 2:
      return static_cast<int64_t>(below(300, random)) - 2;
    case 3:
      return int64_t{1} << below(63, random);
    case 4:
      return -(int64_t{1} << below(63, random));
    case 5:
      return UINT64_MAX;
    case 6:
      return 1e300;
    case 7:
      return 0.5;
    case 8:
      return Json::array();
    default:
      return Json::object();
  }
}

// One change: another value or type, a copy of another part of the tree, an entry less or twice, a renamed key.
inline void mutate(Json& tree, Random& random) {
  Json& node = any_node(tree, random);
  switch (below(6, random)) {
    case 0:
      if (&node != &tree) node = any_value(random);
      return;
    case 1: {
      Json copy = any_node(tree, random);
      if (&node != &tree) node = std::move(copy);
      return;
    }
    case 2:
      if (node.is_structured() && !node.empty())
        node.erase(std::next(node.begin(), static_cast<std::ptrdiff_t>(below(node.size(), random))));
      return;
    case 3: {
      const Json copy = any_node(tree, random);
      if (node.is_array()) {
        node.push_back(copy);
      } else if (node.is_object()) {
        const Json other = any_node(tree, random);
        node[other.is_string() ? other.get<std::string>() : "type"] = copy;
      }
      return;
    }
    case 4:
      if (node.is_object() && !node.empty()) {
        const auto entry = std::next(node.begin(), static_cast<std::ptrdiff_t>(below(node.size(), random)));
        Json value = entry.value();
        const std::string key = text_of(mutated(entry.key(), 8, random));
        node[Json::parse(key).get<std::string>()] = std::move(value);
      }
      return;
    default:
      if (node.is_string()) {
        node = Json::parse(text_of(mutated(node.get<std::string>(), 16, random)));
      } else if (node.is_number_integer()) {
        node = static_cast<int64_t>(node.get<uint64_t>() + below(5, random) - 2);
      } else if (node.is_boolean()) {
        node = !node.get<bool>();
      } else if (&node != &tree && !node.is_structured()) {
        node = any_value(random);
      }
  }
}

}  // namespace gptq::fuzz
