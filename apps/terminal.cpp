#include "terminal.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <sys/ioctl.h>
#include <unistd.h>

#include "options.h"
#include "printing.h"

namespace gptq {
namespace {

size_t terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string figures(const Progress& progress) {
  std::string text = formatted("block %lld/%lld %s", static_cast<long long>(progress.block + 1),
                               static_cast<long long>(progress.blocks), progress.text);
  if (progress.loss > 0) text += formatted("  loss %.3g", progress.loss);
  if (progress.tokens_per_second > 0) text += formatted("  %.0f tok/s", progress.tokens_per_second);
  return text + formatted("  ETA %s  %s", format_seconds(progress.remaining_seconds),
                          format_bytes(static_cast<double>(progress.memory_bytes)));
}

}  // namespace

std::string format_seconds(double seconds) {
  const auto whole = static_cast<long long>(std::llround(std::max(seconds, 0.0)));
  if (whole >= 3600) return formatted("%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
  return formatted("%lld:%02lld", whole / 60, whole % 60);
}

Terminal::Terminal(Verbosity verbosity) : verbosity_(verbosity), is_terminal_(isatty(STDERR_FILENO) != 0) {}

Terminal::~Terminal() { end_bar(); }

Listener Terminal::listener(bool messages) {
  return {.on_message =
              [this, messages](Level level, const std::string& text) {
                if (level == Level::warning)
                  line("warning: " + with_flags(text));
                else if (messages)
                  line(with_flags(text));
              },
          .on_progress = [this](const Progress& progress) { show(progress); }};
}

void Terminal::show(const Progress& progress) {
  if (verbosity_ == Verbosity::quiet) return;
  is_terminal_ ? draw_bar(progress) : plain_line(progress);
}

void Terminal::line(const std::string& text) {
  if (verbosity_ == Verbosity::quiet) return;
  end_bar();
  tell(text);
}

void Terminal::end_bar() {
  if (bar_drawn_) std::fputs("\r\033[K", stderr);
  bar_drawn_ = false;
}

void Terminal::draw_bar(const Progress& progress) {
  constexpr double kInterval = 0.1;  // seconds between two drawings
  if (progress.seconds - last_drawn_ < kInterval && progress.fraction < 1) return;
  last_drawn_ = progress.seconds;
  // The figures come first: the bar takes what they leave of the line.
  const std::string share = formatted("] %3.0f%% ", progress.fraction * 100), text = figures(progress);
  const size_t width = terminal_width() - 1, taken = 1 + share.size() + text.size();
  const size_t cells = width > taken ? std::min<size_t>(20, width - taken) : 0;
  const auto filled = static_cast<size_t>(progress.fraction * static_cast<double>(cells));
  std::string line = "[";
  line.append(filled, '#').append(cells - filled, '.').append(share).append(text);
  std::fprintf(stderr, "\r\033[K%s", line.substr(0, width).c_str());
  std::fflush(stderr);
  bar_drawn_ = true;
}

// One line a block, and one every ten seconds inside a long block; all steps when verbose.
void Terminal::plain_line(const Progress& progress) {
  const bool due = progress.block != last_block_ || progress.seconds - last_drawn_ > 10;
  if (!due && verbosity_ != Verbosity::verbose) return;
  last_block_ = progress.block;
  last_drawn_ = progress.seconds;
  tell(formatted("%3.0f%% ", progress.fraction * 100) + figures(progress));
}

}  // namespace gptq
