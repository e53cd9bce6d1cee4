// A batch in parts, each of as many sequences as memory allows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "model/batch.h"

namespace gptq {

// A range of a batch's rows.
struct Rows {
  int64_t first = 0, count = 0;
  MatrixView of(Matrix& matrix) const { return matrix.view().row_range(first, count); }
  ConstMatrixView of(ConstMatrixView matrix) const { return matrix.row_range(first, count); }
};

class MicroBatches {
 public:
  // Sequences that pass a step at once: all, until a device runs out of memory for a step's temporaries; then half as
  // many, down to one. Results do not depend on it.
  int64_t sequences_at_once() const { return sequences_at_once_; }
  void set_sequences_at_once(int64_t count) { sequences_at_once_ = count; }

  // Calls body(rows of the batch, their offsets) for as many sequences at a time. A body must allocate before it
  // changes anything, as it is called again for fewer sequences after OutOfMemory.
  template <typename Body>
  void for_each(const Batch& batch, const Body& body) {
    const auto sequences = static_cast<int64_t>(batch.offsets.size()) - 1;
    for (int64_t first = 0; first < sequences;) {
      const int64_t count = std::min(sequences_at_once_, sequences - first), start = batch.offsets[first];
      std::vector<int64_t> offsets(batch.offsets.begin() + first, batch.offsets.begin() + first + count + 1);
      for (int64_t& offset : offsets) offset -= start;
      try {
        body(Rows{start, offsets.back()}, offsets);
      } catch (const OutOfMemory&) {
        if (count == 1) throw;
        sequences_at_once_ = (count + 1) / 2;
        continue;
      }
      first += count;
    }
  }

 private:
  int64_t sequences_at_once_ = INT64_MAX;
};

}  // namespace gptq
