#include "data/gzip.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

#include <zlib.h>

#include "base/error.h"

namespace gptq {
namespace {

// zlib's state for reading gzip.
class Inflater {
 public:
  explicit Inflater(const std::string& name) : name_(name) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    if (inflateInit2(&stream_, kGzipOnly) != Z_OK) throw Error(cat(name, ": zlib cannot be started"));
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Appends a member's contents; returns the bytes of `packed` that it takes.
  size_t unpack(std::string_view packed, std::string& text) {
    inflateReset(&stream_);
    size_t taken = 0;
    for (int status = Z_OK; status != Z_STREAM_END;) {
      const size_t given = std::min<size_t>(packed.size() - taken, std::numeric_limits<uInt>::max());
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data() + taken));
      stream_.avail_in = static_cast<uInt>(given);
      stream_.next_out = block_.data();
      stream_.avail_out = static_cast<uInt>(block_.size());
      status = inflate(&stream_, Z_NO_FLUSH);
      const size_t made = block_.size() - stream_.avail_out;
      taken += given - stream_.avail_in;
      if (status == Z_BUF_ERROR || (status == Z_OK && made == 0 && taken == packed.size()))
        throw InputError(cat(name_, " ends in the middle of its gzip data; download it again"));
      if (status != Z_OK && status != Z_STREAM_END)
        throw InputError(cat(name_, " is broken gzip data (at byte ", taken, "); download it again"));
      text.append(reinterpret_cast<const char*>(block_.data()), made);
      require_plausible(text.size(), taken);
    }
    return taken;
  }

 private:
  // Texts shrink to a third or a sixth, repetitive ones to a fiftieth; what is made to do harm, to a thousandth.
  void require_plausible(size_t unpacked, size_t packed) const {
    constexpr size_t kAlways = size_t{64} << 20, kMostTimes = 64;
    if (unpacked <= kAlways || unpacked / kMostTimes <= packed) return;
    throw InputError(cat(name_, " is more than ", kMostTimes,
                         " times larger unpacked, which texts are not; if it is meant so, unpack it first (gunzip)"));
  }

  const std::string& name_;
  z_stream stream_{};
  std::array<Bytef, size_t{1} << 16> block_;
};

}  // namespace

bool is_gzip(std::string_view bytes) { return bytes.starts_with("\x1f\x8b"); }

std::string gunzip(std::string_view bytes, const std::string& name) {
  Inflater inflater(name);
  std::string text;
  while (is_gzip(bytes)) bytes.remove_prefix(inflater.unpack(bytes, text));
  if (bytes.find_first_not_of('\0') != bytes.npos)  // zeros pad to a block of a tape or a disk
    throw InputError(cat(name, " has other data after its gzip data; unpack it first (gunzip)"));
  text.shrink_to_fit();
  return text;
}

}  // namespace gptq
