#include "data/tokenizer/unigram.h"

#include <algorithm>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/tokenizer/unicode.h"
#include "data/tokenizer/values.h"

namespace gptq {

Unigram::Unigram(const nlohmann::json& model) {
  constexpr double kUnknownPenalty = 10;  // below the lowest score, as in SentencePiece
  double least = 0;
  for (const auto& entry : model.at("vocab")) {
    const auto id = static_cast<int32_t>(pieces_.size());
    pieces_.push_back(entry.at(0).get<std::string>());
    scores_.push_back(entry.at(1).get<double>());
    least = pieces_.size() == 1 ? scores_.back() : std::min(least, scores_.back());
    ids_.emplace(pieces_.back(), id);
    if (!pieces_.back().empty()) trie_.insert(pieces_.back()) = id;
  }
  unknown_score_ = least - kUnknownPenalty;
  if (const auto found = model.find("unk_id"); found != model.end() && !found->is_null()) {
    unknown_id_ = token_id_of(*found, "the unk_id of model Unigram");
    if (unknown_id_ >= static_cast<int32_t>(pieces_.size()))
      throw InputError(cat("the unk_id ", unknown_id_, " of model Unigram is not the id of a piece"));
  }
  if (!model.value("byte_fallback", false)) return;
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    byte_ids_.push_back(token_id(name));
  }
}

int32_t Unigram::token_id(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

const std::string* Unigram::token(int32_t id) const {
  return id >= 0 && id < static_cast<int32_t>(pieces_.size()) ? &pieces_[id] : nullptr;
}

void Unigram::encode(std::string_view word, WordCache& cache, Budget& budget, std::vector<int32_t>& ids) const {
  constexpr size_t kCached = 64;  // bytes of a word that is cached
  if (word.empty()) return;
  if (word.size() > kCached) {
    const std::vector<int32_t> found = cut(word, budget);
    ids.insert(ids.end(), found.begin(), found.end());
    return;
  }
  auto known = cache.words.find(word);
  if (known == cache.words.end()) {
    const std::vector<int32_t> found = cut(word, budget);
    const WordCache::Range range{cache.ids.size(), cache.ids.size() + found.size()};
    cache.ids.insert(cache.ids.end(), found.begin(), found.end());
    known = cache.words.emplace(std::string(word), range).first;
  }
  const auto [start, end] = known->second;
  for (size_t i = start; i < end; ++i) ids.push_back(cache.ids[i]);
}

// Viterbi: the best split up to each position, then backwards from the end.
std::vector<int32_t> Unigram::cut(std::string_view word, Budget& budget) const {
  struct Place {
    double score = 0;
    size_t start = 0;
    int32_t piece = -1;
    bool reached = false;
  };
  constexpr uint64_t kStepsPerByte = 8;  // of a piece that is looked for
  std::vector<Place> best(word.size() + 1);
  best[0].reached = true;
  const auto offer = [&](size_t start, size_t end, int32_t piece, double score) {
    const double total = best[start].score + score;
    if (!best[end].reached || total > best[end].score) best[end] = {total, start, piece, true};
  };
  for (size_t start = 0; start < word.size();) {
    size_t next = start;
    next_character(word, next);
    bool has_character = false;
    size_t end = start;
    for (uint32_t node = 0; end < word.size();) {
      node = trie_.next(node, word[end++]);
      if (node == Trie::kNone) break;
      const int32_t piece = trie_.number(node);
      if (piece < 0) continue;
      offer(start, end, piece, scores_[piece]);
      has_character = has_character || end == next;
    }
    budget.spend(kStepsPerByte * (end - start), "the model Unigram");
    if (!has_character) {
      if (unknown_id_ < 0) throw InputError("a character is in no piece of model Unigram, which has no unk_id");
      offer(start, next, unknown_id_, unknown_score_);
    }
    start = next;
  }
  // Adjacent unknown characters are one token.
  std::vector<std::pair<size_t, size_t>> cuts;
  bool behind_unknown = false;
  for (size_t end = word.size(); end > 0;) {
    const Place& place = best[end];
    const bool is_unknown = place.piece == unknown_id_;
    if (is_unknown && behind_unknown) {
      cuts.back().first = place.start;
    } else {
      cuts.emplace_back(place.start, end);
    }
    behind_unknown = is_unknown;
    end = place.start;
  }
  std::vector<int32_t> ids;
  for (auto at = cuts.rbegin(); at != cuts.rend(); ++at) {
    const std::string_view text = word.substr(at->first, at->second - at->first);
    const int32_t id = token_id(text);
    if (id >= 0) {
      ids.push_back(id);
      continue;
    }
    const bool has_bytes = !byte_ids_.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
      return byte_ids_[static_cast<unsigned char>(c)] >= 0;
    });
    if (has_bytes) {
      for (const char c : text) ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
    } else {
      ids.push_back(unknown_id_);
    }
  }
  return ids;
}

}  // namespace gptq
