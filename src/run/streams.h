// The two streams of a calibration: the states that pass the quantized blocks, and those that pass the original ones.
#pragma once

#include <functional>

#include "run/states.h"

namespace gptq {

// The same tokens in both streams.
struct BatchPair {
  Batch& batch;
  Batch* original = nullptr;  // nullptr with one stream
};

// originals: the states of the unquantized model, with as many batches; nullptr if the recipe does not need them.
struct Streams {
  StateStore& states;
  StateStore* originals = nullptr;

  // Calls visit() for all batches, with their states on `backend`; `use` as in StateStore, for both streams.
  void for_each(Backend& backend, StateUse use, const std::function<void(BatchPair)>& visit) const {
    if (originals == nullptr) return states.for_each(backend, use, [&](Batch& batch) { visit({batch}); });
    for (int64_t i = 0; i < states.batches(); ++i) {
      states.visit(i, backend, use, [&](Batch& batch) {
        originals->visit(i, backend, use, [&](Batch& original) { visit({batch, &original}); });
      });
    }
  }
};

}  // namespace gptq
