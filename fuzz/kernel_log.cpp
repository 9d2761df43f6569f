// The kernel's log, of which any process may write lines: pieces of any bytes become the same lines however they come,
// and what is read off a line is within its bounds, printable, and read off its own words again.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "expect.h"
#include "nvml/kernel_log.h"
#include "textnlp_fast/nvml.h"

namespace {

using namespace textnlp_fast::nvml;

constexpr std::size_t kMostLine = 16384;
constexpr std::size_t kMostText = 512;

std::vector<std::string> lines_of(std::string_view data, std::size_t step) {
  KernelLog log;
  std::vector<std::string> found;
  for (std::size_t at = 0; at < data.size(); at += step) {
    const std::string_view piece = data.substr(at, step);
    log.feed(piece.data(), piece.size(), [&](std::string_view line) { found.emplace_back(line); });
  }
  return found;
}

// The same by its definition: what stands before each newline, unless it is too long to be a record.
std::vector<std::string> by_definition(std::string_view data) {
  std::vector<std::string> found;
  for (std::size_t end = data.find('\n'); end != std::string_view::npos; end = data.find('\n')) {
    if (end <= kMostLine) found.emplace_back(data.substr(0, end));
    data.remove_prefix(end + 1);
  }
  return found;
}

bool is_plain(std::string_view text) {
  for (const char c : text) {
    if (c < ' ' || c > '~') return false;
  }
  return true;
}

// `0000003B:00:1F.0`, the form of NVML's that GPUs are told by.
void check_pci(const std::string& pci) {
  EXPECT(pci.size() == 16 && pci[8] == ':' && pci[11] == ':' && pci.substr(14) == ".0");
  EXPECT(pci.find_first_not_of("0123456789ABCDEF:.") == std::string::npos);
}

void check_error(std::string_view text) {
  KernelError error;
  if (!parse_kernel_error(text, &error)) return;
  EXPECT(error.code <= 999'999);
  EXPECT(error.text.size() <= kMostText && is_plain(error.text));
  EXPECT(error.process.size() <= 64 && is_plain(error.process));
  EXPECT(!error.nvswitch || (!error.pid && error.process.empty()));
  EXPECT(error.nvswitch || (!error.fatal && !error.link));
  check_pci(error.pci_bus_id);
  const std::string head = error.nvswitch ? "nvidia-nvswitch0: SXid (PCI:" : "NVRM: Xid (PCI:";
  KernelError again;
  EXPECT(parse_kernel_error(head + error.pci_bus_id + "): " + std::to_string(error.code) + ", " + error.text, &again));
  EXPECT(again.code == error.code && again.pci_bus_id == error.pci_bus_id && again.nvswitch == error.nvswitch);
  EXPECT(again.fatal == error.fatal);
}

void check_uuid(std::string_view text) {
  std::string pci;
  std::string uuid;
  if (!parse_kernel_uuid(text, &pci, &uuid)) return;
  EXPECT(uuid.size() <= 64 && is_plain(uuid) && uuid.substr(0, 4) == "GPU-");
  check_pci(pci);
}

void check_line(const std::string& line) {
  check_error(line);
  check_uuid(line);
  KernelRecord record;
  if (!parse_kernel_record(line, &record)) return;
  const std::string_view whole(line);
  EXPECT(record.text.data() >= whole.data() && record.text.data() + record.text.size() == whole.data() + whole.size());
  const std::string head = std::to_string(record.priority) + "," + std::to_string(record.sequence) + "," +
                           std::to_string(record.time_us) + ",-;";
  const std::string written = head + std::string(record.text);
  KernelRecord again;
  EXPECT(parse_kernel_record(written, &again));
  EXPECT(again.priority == record.priority && again.sequence == record.sequence && again.time_us == record.time_us);
  EXPECT(again.text == record.text);
  check_error(record.text);
  check_uuid(record.text);
}

}  // namespace

// A byte for the size of the pieces, which also says whether a line that is too long stands before; the rest is the
// log.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
  if (size < 1) return 0;
  const std::string data(reinterpret_cast<const char*>(input + 1), size - 1);
  const std::string log = std::string(input[0] < 0x80 ? 0 : kMostLine, 'x') + data;
  const std::vector<std::string> expected = by_definition(log);
  EXPECT(lines_of(log, log.size() + 1) == expected);
  EXPECT(lines_of(log, 1 + std::size_t{input[0]}) == expected);
  for (const std::string& line : expected) check_line(line);
  check_line(data);
  return 0;
}
