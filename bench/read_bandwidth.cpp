// Bytes a second that some threads read from memory: the limit of a model that writes one token at a time.
//   read_bandwidth [THREADS]        each reads its part of 512 MB, nine times; prints the median
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "base/parallel.h"
#include "base/stopwatch.h"

int main(int argc, char** argv) {
  constexpr int64_t kWords = int64_t{64} << 20, kPieces = 64;
  constexpr int kRounds = 9;
  gptq::ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 0);
  const std::vector<uint64_t> words(kWords, 1);
  std::vector<uint64_t> sums(kPieces);
  std::vector<double> rates;
  for (int round = 0; round < kRounds; ++round) {
    const gptq::Stopwatch watch;
    pool.for_each(kPieces, [&](int64_t piece) {
      const uint64_t* first = words.data() + piece * (kWords / kPieces);
      sums[static_cast<size_t>(piece)] = std::accumulate(first, first + kWords / kPieces, uint64_t{0});
    });
    rates.push_back(static_cast<double>(kWords * sizeof(uint64_t)) / watch.seconds());
  }
  const uint64_t total = std::accumulate(sums.begin(), sums.end(), uint64_t{0});
  std::sort(rates.begin(), rates.end());
  std::printf("%.2f GB/s with %d threads\n", rates[kRounds / 2] / 1e9, pool.size());
  return total == kWords ? 0 : 1;
}
