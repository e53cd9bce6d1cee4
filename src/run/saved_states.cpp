#include "run/saved_states.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>

#include "base/error.h"
#include "io/digest.h"

namespace gptq {
namespace {

constexpr int64_t kPieceBytes = int64_t{4} << 20;

// Calls copy(rows of a residual) piece by piece.
template <typename Copy>
void for_each_piece(MatrixView residual, const Copy& copy) {
  const int64_t row_bytes = residual.cols * static_cast<int64_t>(size_of(residual.dtype));
  const int64_t rows = std::max<int64_t>(1, kPieceBytes / std::max<int64_t>(row_bytes, 1));
  for (int64_t first = 0; first < residual.rows; first += rows)
    copy(residual.row_range(first, std::min(rows, residual.rows - first)));
}

size_t bytes_of(MatrixView rows) { return static_cast<size_t>(rows.rows * rows.cols) * size_of(rows.dtype); }

constexpr int64_t kSmallBytes = int64_t{16} << 20;
constexpr double kShareOfTime = 0.05;

}  // namespace

int64_t saved_bytes(const std::vector<StateStore*>& stores) {
  int64_t bytes = 0;
  for (const StateStore* store : stores) bytes += store->residual_bytes();
  return bytes;
}

bool SavingSchedule::is_due(int64_t bytes, Clock::time_point now) const {
  const std::chrono::duration<double> since = now - last_;
  return bytes <= kSmallBytes || static_cast<double>(bytes) * seconds_per_byte_ <= kShareOfTime * since.count();
}

void SavingSchedule::saved(int64_t bytes, Clock::time_point begin, Clock::time_point end) {
  last_ = end;
  seconds_per_byte_ =
      std::chrono::duration<double>(end - begin).count() / static_cast<double>(std::max<int64_t>(bytes, 1));
}

uint64_t save_states(const std::filesystem::path& file, const std::vector<StateStore*>& stores, Backend& backend) {
  const Descriptor to(open(file.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666));
  if (!to) throw write_failure(file, errno, 0);
  Digest digest;
  std::vector<std::byte> piece;
  size_t done = 0;
  for (StateStore* store : stores) {
    store->for_each(backend, kOnlyLooks, [&](Batch& batch) {
      for_each_piece(batch.residual, [&](MatrixView rows) {
        piece.resize(bytes_of(rows));
        backend.download(piece.data(), rows);
        backend.wait();
        digest.add(piece.data(), piece.size());
        write_all(*to, file, piece.data(), piece.size(), done);
        done += piece.size();
      });
    });
  }
  return digest.value();
}

bool restore_states(const std::filesystem::path& file, uint64_t digest, const std::vector<StateStore*>& stores,
                    Backend& backend) {
  if (!is_there(file)) return false;
  const Descriptor from = open_regular(file);
  const auto bytes = static_cast<size_t>(saved_bytes(stores));
  if (file_size(from, file) != bytes || digest_of(*from, file, bytes) != digest) return false;
  constexpr StateUse kReplaces{.reads_residual = true, .reads_input = false, .writes_residual = true};
  std::vector<std::byte> piece;
  size_t done = 0;
  for (StateStore* store : stores) {
    store->for_each(backend, kReplaces, [&](Batch& batch) {
      for_each_piece(batch.residual, [&](MatrixView rows) {
        piece.resize(bytes_of(rows));
        read_all(*from, file, piece.data(), piece.size(), done);
        backend.upload(rows, piece.data());
        done += piece.size();
      });
    });
  }
  backend.wait();
  return true;
}

}  // namespace gptq
