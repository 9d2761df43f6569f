// Writes the seeds of the kernel log's harness into the folder named on the command line: lines as NVIDIA's drivers
// write them, bare and as records of /dev/kmsg.
#include <cstdio>
#include <string>

namespace {

constexpr const char* kLines[] = {
    "NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python, GPU has fallen off the bus.",
    "NVRM: Xid (PCI:0000:3b:00): 31, pid='<unknown>', name=<unknown>, Ch 00000010, intr 10000000. MMU Fault",
    "NVRM: Xid (0000:03:00): 62, 00de(1ae4) 00000000 00000000",
    "NVRM: Xid (PCI:0009:01:00.0): 145, RLW_REMAP Nonfatal XC1 i0 Link 05 (0x1 0x2)",
    "NVRM: GPU at PCI:0000:3b:00: GPU-6d3d4c2e-1f4b-8e0a-9c3b-1a2b3c4d5e6f",
    "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 32 LTSSM Fault Up",
    "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 11004, Non-fatal, Link 04 ingress invalid ACL",
    "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Severity 5 Engine instance 32 Sub-engine instance 00",
};

bool write_seed(const std::string& path, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) {
    std::perror(path.c_str());
    return false;
  }
  const bool whole = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  return std::fclose(file) == 0 && whole;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", arguments[0]);
    return 2;
  }
  bool good = true;
  unsigned number = 0;
  std::string all(1, '\7');
  for (const char* line : kLines) {
    const std::string record = "4," + std::to_string(1000 + number) + ",5140900123,-;" + line + "\n";
    const std::string stem = std::string(arguments[1]) + "/seed_" + std::to_string(number);
    good = write_seed(stem + "_bare", "\3" + std::string(line) + "\n") && good;
    good = write_seed(stem + "_record", "\1" + record) && good;
    all += record;
    ++number;
  }
  return write_seed(std::string(arguments[1]) + "/seed_all", all + " SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0\n") &&
                 good
             ? 0
             : 1;
}
