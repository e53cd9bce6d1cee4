// Chooses the bits of each part of a model for a given mean over all weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace gptq {

struct BitUnit {
  int64_t weights = 0;
  struct Candidate {
    int bits = 0;
    double loss = 0;
  };
  std::vector<Candidate> candidates;  // ascending bits, at least one
};

// A step of a block whose linears get one width, with what each width does to the model's predictions.
struct ProbedStep {
  std::vector<std::string> linears;
  BitUnit unit;  // a candidate a width; losses in nats per token
};

// How many of the widths up for choice are measured with a probe: the least ones, at most two; not 8 bits, which
// change next to nothing.
int64_t probed_widths(const std::vector<int>& widths);

// For each unit the index of its candidate, to minimize the sum of losses while the mean of bits over weights is at
// most `average_bits`. Each unit starts with its fewest bits; steps along the lower convex hulls of the candidates are
// taken in the order of their gain per bit, as long as they fit. Optimal except for the last step that does not fit
// (Shoham and Gersho, 1988). If even the fewest bits exceed the mean, they are chosen.
std::vector<size_t> choose_bits(const std::vector<BitUnit>& units, double average_bits);

}  // namespace gptq
