// Which bits each part of a model gets, for a mean over all of its weights.
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
  std::vector<Candidate> candidates;  // by rising bits, at least one
};

// A step of a block whose linears get one width, with what each width does to the model's predictions.
struct ProbedStep {
  std::vector<std::string> linears;
  BitUnit unit;  // a candidate a width; losses in nats per token
};

// How many of the widths up for choice are measured with a probe: the least ones, at most two; not 8 bits, which
// change next to nothing.
int64_t probed_widths(const std::vector<int>& widths);

// For each unit the index of its candidate: least sum of losses, while the mean of bits over weights stays at or under
// `average_bits`. Each unit starts with its fewest bits; what a step up gains per bit decides who takes it, along the
// lower convex hull of a unit's candidates, as long as it fits. That is the optimum but for the last unit that does not
// fit (Shoham and Gersho, 1988). Where the fewest bits are too many already, they stay.
std::vector<size_t> choose_bits(const std::vector<BitUnit>& units, double average_bits);

}  // namespace gptq
