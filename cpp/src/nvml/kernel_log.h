// Reads the kernel's log as it grows: /dev/kmsg, where each read gives one record, or a file or pipe of such lines.
#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "textnlp_fast/nvml.h"

namespace textnlp_fast::nvml {

class KernelLog {
 public:
  using Line = std::function<void(std::string_view line)>;
  using Missed = std::function<void()>;

  KernelLog() = default;
  ~KernelLog();
  KernelLog(const KernelLog&) = delete;
  KernelLog& operator=(const KernelLog&) = delete;

  // False: `why` is what the system says.
  bool open(const std::string& path, bool from_start, std::string* why);

  // Gives each line to `line`, and tells `missed` when the kernel dropped records; returns after `stop`.
  void run(const Line& line, const Missed& missed);

  // From any thread.
  void stop() noexcept;

  // The pieces of a stream, put together to lines; for `run`, and for tests.
  void feed(const char* data, std::size_t size, const Line& line);

 private:
  // False: told to stop.
  bool wait(bool for_data, int timeout_ms) noexcept;

  int file_ = -1;
  int wake_[2] = {-1, -1};
  bool regular_ = false;
  bool skipping_ = false;  // inside a line that is too long to be one
  std::string open_line_;
};

}  // namespace textnlp_fast::nvml
