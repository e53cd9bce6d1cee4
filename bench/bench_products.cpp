// Matrix products of several libraries beside this program's CPU backend, in one process and one run, at the shapes of
// SmolLM2-135M and Llama-3-8B: y = x w' of the linears, and the lower triangle of h += x' x of the Hessians. Ceilings
// are the processor's vector units, measured first. OpenBLAS is always there; BLIS and oneDNN join with
// -DGPTQ_BENCH_LIBRARIES=ON.
//   bench_products [--threads N] [--seconds S] [--rows TEXT]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <cblas.h>

#include "backend/backend.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/stopwatch.h"
#include "vector_units.h"

#ifdef GPTQ_ONEDNN
#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>
#endif
#ifdef GPTQ_BLIS  // the library's path
#include <blis.h>
#include <dlfcn.h>
#endif

namespace gptq {
namespace {

constexpr int64_t kTokens = 2048;

struct Row {
  const char* name;
  int64_t n, k;
  bool gram;
};
constexpr Row kRows[] = {{"SmolLM2-135M q", 576, 576, false},      {"SmolLM2-135M k", 192, 576, false},
                         {"SmolLM2-135M gate", 1536, 576, false},  {"SmolLM2-135M down", 576, 1536, false},
                         {"Llama-3-8B q", 4096, 4096, false},      {"Llama-3-8B k", 1024, 4096, false},
                         {"Llama-3-8B gate", 14336, 4096, false},  {"Llama-3-8B down", 4096, 14336, false},
                         {"Hessian, width 576", 576, 576, true},   {"Hessian, width 1536", 1536, 1536, true},
                         {"Hessian, width 4096", 4096, 4096, true}};

// y = x w'; where w is empty, the lower triangle of y += x' x.   x [tokens, k], w [n, k], y [tokens, n] or f32 [k, k];
// all dense
struct Operands {
  MatrixView x, w, y;
  bool gram() const { return w.empty(); }
};

using Call = std::function<void()>;

struct Candidate {
  const char* name;
  DType inputs, output;  // Hessians are f32 whatever `output` is
  bool computes_gram;
  std::function<Call(const Operands&)> prepare;
};

Call our_product(const Operands& o, Backend& backend) {
  if (!o.gram()) return [=, &backend] { backend.run(ops::Linear{.x = o.x, .w = o.w, .y = o.y}); };
  const auto dropped = std::make_shared<Matrix>(backend, DType::i32, 1, 1);
  backend.run(ops::Clear{.y = *dropped});
  return [=, &backend] { backend.run(ops::AddGram{.x = o.x, .h = o.y, .dropped = *dropped}); };
}

// Lives as long as the call that is measured: backends keep OpenBLAS at one thread.
struct OpenBlasThreads {
  explicit OpenBlasThreads(int threads) { openblas_set_num_threads(threads); }
  ~OpenBlasThreads() { openblas_set_num_threads(1); }
};

Call openblas_product(const Operands& o, int threads) {
  const auto m = static_cast<blasint>(o.x.rows), n = static_cast<blasint>(o.y.cols), k = static_cast<blasint>(o.x.cols);
  const auto *x = static_cast<const float*>(o.x.data), *w = static_cast<const float*>(o.w.data);
  auto* y = static_cast<float*>(o.y.data);
  return [=, gram = o.gram(), scope = std::make_shared<OpenBlasThreads>(threads)] {
    if (gram) {
      cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, n, m, 1, x, n, 1, y, n);
    } else {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, x, k, w, k, 0, y, n);
    }
  };
}

#ifdef GPTQ_BLIS
// Loaded apart from the program's own symbols, because BLIS exports those of BLAS and CBLAS too, as OpenBLAS does.
template <typename Function>
Function* blis(const char* name) {
  static void* const library = dlopen(GPTQ_BLIS, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  void* const symbol = library == nullptr ? nullptr : dlsym(library, name);
  if (symbol == nullptr) throw UnsupportedError(cat("BLIS: ", dlerror()));
  return reinterpret_cast<Function*>(symbol);
}

Call blis_product(const Operands& o, int threads) {
  blis<decltype(bli_thread_set_num_threads)>("bli_thread_set_num_threads")(threads);
  const int64_t m = o.x.rows, n = o.y.cols, k = o.x.cols;
  auto *x = static_cast<float*>(o.x.data), *w = static_cast<float*>(o.w.data), *y = static_cast<float*>(o.y.data);
  float zero = 0, one = 1;
  // Transposes are expressed by strides of rows and columns.
  if (o.gram()) {
    return [=, ssyrk = blis<decltype(bli_ssyrk)>("bli_ssyrk")]() mutable {
      ssyrk(BLIS_LOWER, BLIS_NO_TRANSPOSE, n, m, &one, x, 1, n, &one, y, n, 1);
    };
  }
  return [=, sgemm = blis<decltype(bli_sgemm)>("bli_sgemm")]() mutable {
    sgemm(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, m, n, k, &one, x, k, 1, w, 1, k, &zero, y, n, 1);
  };
}

std::string blis_description() {
  const auto arch = blis<decltype(bli_arch_query_id)>("bli_arch_query_id")();
  return cat("BLIS ", blis<decltype(bli_info_get_version_str)>("bli_info_get_version_str")(), ", ",
             blis<decltype(bli_arch_string)>("bli_arch_string")(arch));
}
#endif

#ifdef GPTQ_ONEDNN
// Weights are taken row by row as the others take them, not packed beforehand. `chosen` receives what oneDNN runs.
Call onednn_product(const Operands& o, int threads, std::set<std::string>& chosen) {
  omp_set_num_threads(threads);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const auto describe = [](const MatrixView& m, bool transposed) {
    const auto type = m.dtype == DType::f32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
    if (transposed) return dnnl::memory::desc({m.cols, m.rows}, type, dnnl::memory::dims{1, m.stride});
    return dnnl::memory::desc({m.rows, m.cols}, type, dnnl::memory::dims{m.stride, 1});
  };
  const MatrixView& right = o.gram() ? o.x : o.w;
  const dnnl::memory::desc a = describe(o.x, o.gram()), b = describe(right, !o.gram()), c = describe(o.y, false);
  dnnl::primitive_attr attributes;
  if (o.gram()) {
    dnnl::post_ops accumulate;
    accumulate.append_sum();
    attributes.set_post_ops(accumulate);
  }
#if DNNL_VERSION_MAJOR < 3
  const dnnl::matmul::primitive_desc product({a, b, c}, attributes, engine, /*allow_empty=*/true);
#else
  const dnnl::matmul::primitive_desc product(engine, a, b, c, attributes, /*allow_empty=*/true);
#endif
  if (!product) return {};  // no bf16 on this processor
  chosen.insert(product.impl_info_str());
  return [=, primitive = dnnl::matmul(product), stream = dnnl::stream(engine), x = dnnl::memory(a, engine, o.x.data),
          w = dnnl::memory(b, engine, right.data), y = dnnl::memory(c, engine, o.y.data)]() mutable {
    primitive.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}});
    stream.wait();
  };
}
#endif

// Normal values that bf16 holds exactly, so that all candidates multiply the same numbers.
Matrix random(Backend& backend, int64_t rows, int64_t cols, unsigned seed) {
  std::vector<float> block(1U << 20);
  std::minstd_rand generator(seed);
  std::normal_distribution<float> normal;
  for (float& value : block) value = normal(generator);
  Matrix m(backend, DType::f32, rows, cols), rounded(backend, DType::bf16, rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i) m.row<float>(0)[i] = block[i % block.size()];
  backend.run(ops::Convert{.x = m, .y = rounded});
  backend.run(ops::Convert{.x = rounded, .y = m});
  return m;
}

// Throws unless some elements of y, after one call on zeros, are those of the f32 operands x and w.
void check(Backend& backend, const char* name, ConstMatrixView x, ConstMatrixView w, ConstMatrixView y) {
  Matrix found(backend, DType::f32, 1, y.cols);
  for (int64_t i = y.rows - 1; i >= 0; i -= y.rows / 7) {
    backend.run(ops::Convert{.x = y.row_range(i, 1), .y = found});
    for (int64_t j = w.empty() ? i : y.cols - 1; j >= 0; j -= y.cols / 5) {
      double sum = 0;
      const int64_t terms = w.empty() ? x.rows : x.cols;
      for (int64_t t = 0; t < terms; ++t) {
        sum += w.empty() ? double{x.row<float>(t)[i]} * x.row<float>(t)[j]
                         : double{x.row<float>(i)[t]} * w.row<float>(j)[t];
      }
      const double error = found.row<float>(0)[j] - sum, tolerance = std::sqrt(terms) / 50;  // y rounds to bf16
      if (!(std::abs(error) < tolerance)) throw UnsupportedError(cat(name, " is off by ", error, " at ", i, ", ", j));
    }
  }
}

// Of a call that has run before.
double median_seconds(const Call& call, int threads, double seconds) {
  for (const Stopwatch watch; watch.seconds() < seconds / 5;) call();  // threads of other candidates fall asleep
  std::vector<double> times;
  for (const Stopwatch watch; watch.seconds() < seconds || times.size() < 3;) {
    const double start = seconds_now(threads);
    call();
    times.push_back(std::max(seconds_now(threads) - start, 1e-9));
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

// Prints a line about each library. `chosen` receives what oneDNN runs; all arguments outlive the candidates.
std::vector<Candidate> open_candidates(Backend& backend, const int& threads, std::set<std::string>& chosen) {
  const auto ours = [&](const Operands& o) { return our_product(o, backend); };
  const auto openblas = [&](const Operands& o) { return openblas_product(o, threads); };
  std::printf("gptq: %s\n%s\n", backend.description().c_str(), openblas_get_config());
  std::vector<Candidate> candidates = {{"gptq f32", DType::f32, DType::f32, true, ours},
                                       {"gptq bf16", DType::bf16, DType::bf16, true, ours},
                                       {"OpenBLAS f32", DType::f32, DType::f32, true, openblas}};
#ifdef GPTQ_BLIS
  std::printf("%s\n", blis_description().c_str());
  const auto blis = [&](const Operands& o) { return blis_product(o, threads); };
  candidates.push_back({"BLIS f32", DType::f32, DType::f32, true, blis});
#endif
#ifdef GPTQ_ONEDNN
  const dnnl_version_t& version = *dnnl_version();
  std::printf("oneDNN %d.%d.%d\n", version.major, version.minor, version.patch);
  const auto onednn = [&](const Operands& o) { return onednn_product(o, threads, chosen); };
  candidates.push_back({"oneDNN f32", DType::f32, DType::f32, true, onednn});
  candidates.push_back({"oneDNN bf16", DType::bf16, DType::bf16, true, onednn});
  candidates.push_back({"oneDNN bf16>f32", DType::bf16, DType::f32, false, onednn});
#else
  (void)chosen;
#endif
  return candidates;
}

// One row of the table: each candidate's useful flops per second.
void measure(const Row& row, const std::vector<Candidate>& candidates, const Peaks& peaks, Backend& backend,
             int threads, double seconds) {
  Matrix x = random(backend, kTokens, row.k, 1), narrow_x(backend, DType::bf16, kTokens, row.k);
  Matrix w = random(backend, row.gram ? 0 : row.n, row.k, 2), narrow_w(backend, DType::bf16, w.rows(), row.k);
  backend.run(ops::Convert{.x = x, .y = narrow_x});
  backend.run(ops::Convert{.x = w, .y = narrow_w});
  // One triangle with its diagonal is what a Hessian needs, whatever a library computes.
  const double flops = 1.0 * kTokens * row.k * (row.gram ? row.k + 1 : 2 * row.n);
  std::printf("%-20s", row.name);
  for (const Candidate& candidate : candidates) {
    if (row.gram && !candidate.computes_gram) {
      std::printf(" %16s", "-");
      continue;
    }
    Matrix y(backend, row.gram ? DType::f32 : candidate.output, row.gram ? row.k : kTokens, row.n);
    backend.run(ops::Clear{.y = y});
    const bool narrow = candidate.inputs == DType::bf16;
    const Call call = candidate.prepare({narrow ? narrow_x : x, narrow ? narrow_w : w, y});
    if (!call) {
      std::printf(" %16s", "-");
      continue;
    }
    call();
    check(backend, candidate.name, x, w, y);
    const double rate = flops / median_seconds(call, threads, seconds),
                 peak = (narrow ? peaks.bf16 : peaks.f32).registers;
    if (peak > 0) {
      std::printf(" %9.1f (%3.0f%%)", rate / 1e9, 100 * rate / peak);
    } else {
      std::printf(" %16.1f", rate / 1e9);
    }
    std::fflush(stdout);
  }
  std::printf("\n");
}

void run(int threads, double seconds, const std::string& rows) {
  std::set<std::string> chosen;
  const auto backend = open_backend("cpu", {.threads = threads});
  std::printf("%s\n", list_devices().back().description.c_str());
  const std::vector<Candidate> candidates = open_candidates(*backend, threads, chosen);
  const Peaks peaks = measure_peaks(threads, seconds);

  std::printf("\n%d tokens, %d thread%s: GFLOP/s (share of the peak for the inputs)\n%-20s", static_cast<int>(kTokens),
              threads, threads == 1 ? "" : "s", "");
  for (const Candidate& candidate : candidates) std::printf(" %16s", candidate.name);
  std::printf("\n");
  for (const Row& row : kRows) {
    if (std::string(row.name).find(rows) == std::string::npos) continue;
    measure(row, candidates, peaks, *backend, threads, seconds);
  }
  for (const std::string& name : chosen) std::printf("oneDNN ran %s\n", name.c_str());
}

}  // namespace
}  // namespace gptq

int main(int argc, char** argv) {
  CLI::App app("Matrix products of several libraries beside gptq's CPU backend");
  int threads = 1;
  double seconds = 1;
  std::string rows;
  app.add_option("--threads", threads, "Threads of each candidate")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--seconds", seconds, "Time for each measurement, the median of its calls counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--rows", rows, "Only rows whose name contains this");
  CLI11_PARSE(app, argc, argv);
  try {
    gptq::run(threads, seconds, rows);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_products: %s\n", error.what());
    return 1;
  }
  return 0;
}
