#include "nvml/kernel_log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "nvml/query.h"

namespace textnlp_fast::nvml {
namespace {

constexpr std::size_t kMostText = 512;
constexpr std::size_t kMostName = 64;
constexpr std::size_t kMostLine = 16384;  // the kernel's records are at most 8 KiB with their dictionary
constexpr int kTailPauseMs = 50;

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

// Takes a number off the front; false, and nothing taken, if there is none or it is too large.
template <class Number>
bool take_number(std::string_view* text, Number* out, int base = 10) noexcept {
  if (text->empty() || text->front() == '-' || text->front() == '+') return false;
  const char* begin = text->data();
  const auto result = std::from_chars(begin, begin + text->size(), *out, base);
  if (result.ec != std::errc()) return false;
  text->remove_prefix(static_cast<std::size_t>(result.ptr - begin));
  return true;
}

bool take_text(std::string_view* text, std::string_view prefix) noexcept {
  if (text->substr(0, prefix.size()) != prefix) return false;
  text->remove_prefix(prefix.size());
  return true;
}

// `PCI:0000:3b:00.0`, with or without the word, the function, and a domain of up to eight digits.
bool take_pci(std::string_view* text, std::string* out) {
  std::string_view rest = *text;
  (void)take_text(&rest, "PCI:");
  unsigned domain = 0;
  unsigned bus = 0;
  unsigned device = 0;
  if (!take_number(&rest, &domain, 16) || !take_text(&rest, ":")) return false;
  if (!take_number(&rest, &bus, 16) || bus > 0xFF) return false;
  if (take_text(&rest, ":")) {
    if (!take_number(&rest, &device, 16) || device > 0x1F) return false;
  } else {
    return false;
  }
  if (take_text(&rest, ".")) {
    unsigned function = 0;
    if (!take_number(&rest, &function, 16) || function > 7) return false;
  }
  *text = rest;
  *out = format_pci(domain, bus, device);
  return true;
}

// The part of `text` up to the next comma.
std::string_view up_to_comma(std::string_view text) noexcept { return text.substr(0, text.find(',')); }

void take_process(std::string_view text, KernelError* out) {
  if (!take_text(&text, "pid=")) return;
  std::string_view pid = up_to_comma(text);
  text.remove_prefix(pid.size());
  std::string_view digits = pid;
  if (digits.size() >= 2 && digits.front() == '\'') digits = digits.substr(1, digits.size() - 2);
  std::uint64_t number = 0;
  if (take_number(&digits, &number) && digits.empty()) out->pid = number;
  if (!take_text(&text, ", name=")) return;
  const std::string_view name = up_to_comma(text).substr(0, kMostName);
  if (name != "<unknown>") out->process = printable(name.data(), name.size());
}

void take_switch_details(std::string_view text, KernelError* out) {
  if (take_text(&text, "Non-fatal")) {
    out->fatal = false;
  } else if (take_text(&text, "Fatal")) {
    out->fatal = true;
  }
  const std::size_t at = text.find("Link ");
  if (at == std::string_view::npos) return;
  text.remove_prefix(at + 5);
  std::uint32_t link = 0;
  if (take_number(&text, &link)) out->link = link;
}

}  // namespace

bool parse_kernel_record(std::string_view line, KernelRecord* out) noexcept {
  KernelRecord record;
  if (!take_number(&line, &record.priority) || !take_text(&line, ",")) return false;
  if (!take_number(&line, &record.sequence) || !take_text(&line, ",")) return false;
  if (!take_number(&line, &record.time_us)) return false;
  // Flags, and whatever later kernels add, stand before the semicolon.
  const std::size_t end = line.find(';');
  if (end == std::string_view::npos || (end > 0 && line.front() != ',')) return false;
  record.text = line.substr(end + 1);
  *out = record;
  return true;
}

bool parse_kernel_error(std::string_view text, KernelError* out) {
  KernelError error;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  if (take_text(&text, "NVRM: Xid (")) {
    error.nvswitch = false;
  } else if (take_text(&text, "nvidia-nvswitch")) {
    while (!text.empty() && is_digit(text.front())) text.remove_prefix(1);
    if (!take_text(&text, ": SXid (")) return false;
    error.nvswitch = true;
  } else {
    return false;
  }
  if (!take_pci(&text, &error.pci_bus_id) || !take_text(&text, "): ")) return false;
  if (!take_number(&text, &error.code) || error.code > 999'999) return false;
  if (!text.empty() && !take_text(&text, ", ")) {
    if (text != ",") return false;
    text = {};
  }
  if (error.nvswitch) {
    // The switch's driver follows an error up with lines of the same form that hold registers.
    if (text.substr(0, 9) == "Severity " || text.substr(0, 5) == "Data ") return false;
    take_switch_details(text, &error);
  } else {
    take_process(text, &error);
  }
  const std::string_view shown = text.substr(0, kMostText);
  error.text = printable(shown.data(), shown.size());
  *out = std::move(error);
  return true;
}

bool parse_kernel_uuid(std::string_view text, std::string* pci_bus_id, std::string* uuid) {
  if (!take_text(&text, "NVRM: GPU at ") || !take_pci(&text, pci_bus_id) || !take_text(&text, ": ")) return false;
  if (text.substr(0, 4) != "GPU-" || text.size() < 8 || text.size() > 64) return false;
  *uuid = printable(text.data(), text.size());
  return true;
}

KernelLog::~KernelLog() {
  if (file_ >= 0) close(file_);
  if (wake_[0] >= 0) close(wake_[0]);
  if (wake_[1] >= 0) close(wake_[1]);
}

bool KernelLog::open(const std::string& path, bool from_start, std::string* why) {
  if (pipe(wake_) != 0) {
    *why = std::strerror(errno);
    return false;
  }
  for (const int end : wake_) (void)fcntl(end, F_SETFD, FD_CLOEXEC);
  file_ = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (file_ < 0) {
    *why = std::strerror(errno);
    return false;
  }
  struct stat status {};
  regular_ = fstat(file_, &status) == 0 && S_ISREG(status.st_mode);
  // A pipe cannot be wound; it holds nothing but what is to come.
  if (!from_start) (void)lseek(file_, 0, SEEK_END);
  return true;
}

void KernelLog::stop() noexcept {
  const char byte = 0;
  if (wake_[1] >= 0) {
    while (write(wake_[1], &byte, 1) < 0 && errno == EINTR) {
    }
  }
}

bool KernelLog::wait(bool for_data, int timeout_ms) noexcept {
  pollfd fds[2] = {{wake_[0], POLLIN, 0}, {file_, POLLIN, 0}};
  (void)poll(fds, for_data ? 2 : 1, timeout_ms);
  return (fds[0].revents & POLLIN) == 0;
}

void KernelLog::feed(const char* data, std::size_t size, const Line& line) {
  std::string_view rest(data, size);
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    const std::string_view piece = rest.substr(0, end);
    if (!skipping_ && open_line_.size() + piece.size() > kMostLine) {
      skipping_ = true;
      open_line_.clear();
    }
    if (!skipping_) open_line_.append(piece);
    if (end == std::string_view::npos) return;
    rest.remove_prefix(end + 1);
    if (!skipping_) line(open_line_);
    skipping_ = false;
    open_line_.clear();
  }
}

void KernelLog::run(const Line& line, const Missed& missed) {
  char buffer[8192];  // a smaller one than the record is refused by the kernel
  while (true) {
    const ssize_t size = read(file_, buffer, sizeof buffer);
    if (size > 0) {
      feed(buffer, static_cast<std::size_t>(size), line);
      if (!wait(false, 0)) return;
      continue;
    }
    if (size < 0 && errno == EPIPE) {
      missed();  // the kernel wrote over records that were not read; the next read has the oldest that is left
      continue;
    }
    if (size < 0 && errno == EINTR) continue;
    // The end of a file, and a pipe without a writer, are always ready to be read: look again in a while.
    const bool waits_for_data = size < 0 && errno == EAGAIN && !regular_;
    const bool broken = size < 0 && errno != EAGAIN;
    if (!wait(waits_for_data, waits_for_data ? -1 : broken ? 1000 : kTailPauseMs)) return;
  }
}

}  // namespace textnlp_fast::nvml
