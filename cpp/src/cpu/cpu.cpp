#include "textnlp_fast/cpu.h"

#include <sched.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "cpu/kernels.h"

namespace textnlp_fast {
namespace {

bool always() noexcept { return true; }

#if defined(__x86_64__)
bool has_avx2() noexcept {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("fma");
}

// Ice Lake and Zen 4 on: the codec wants VBMI (byte permutes) and VBMI2 (16-bit expand and compress), chunking VNNI
// (byte dot products); all of these processors have all three.
bool has_avx512() noexcept {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vnni");
}

// Where gathers beat loads one by one: Sapphire Rapids on, told by AVX512-FP16. On Zen 4 they are slower, and on
// Intel's processors before, microcode slows them down. Compilers do not all know the feature by name.
bool has_quick_gathers() noexcept {
  constexpr unsigned kExtended = 7;
  constexpr unsigned kFp16 = 1u << 23;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return has_avx512() && __get_cpuid_count(kExtended, 0, &a, &b, &c, &d) != 0 && (d & kFp16) != 0;
}
#endif

// Best first; the portable row ends the list and always runs.
const Kernels kTable[] = {
#if defined(__x86_64__)
    {"avx512_gather", has_quick_gathers, &hash_kernels_avx512, &chunk_kernels_avx512, &codec_kernels_avx512_gather,
     &low_rank_kernels_avx512},
    {"avx512", has_avx512, &hash_kernels_avx512, &chunk_kernels_avx512, &codec_kernels_avx512,
     &low_rank_kernels_avx512},
    {"avx2", has_avx2, &hash_kernels_avx2, &chunk_kernels_avx2, &codec_kernels_avx2, &low_rank_kernels_avx2},
#elif defined(__aarch64__)
    {"neon", always, &hash_kernels_neon, &chunk_kernels_neon, &codec_kernels_neon, &low_rank_kernels_neon},
#endif
    {"portable", always, &hash_kernels_portable, &chunk_kernels_portable, &codec_kernels_portable,
     &low_rank_kernels_portable},
};

const Kernels* find(const char* name) noexcept {
  for (const Kernels& row : kTable) {
    if (std::strcmp(row.name, name) == 0) return row.supported() ? &row : nullptr;
  }
  return nullptr;
}

struct Choice {
  std::atomic<const Kernels*> row;
  const char* warning = "";

  Choice() noexcept {
    const char* forced = std::getenv("TEXTNLP_FAST_ISA");
    if (forced != nullptr && *forced != '\0') {
      if (const Kernels* found = find(forced)) {
        row = found;
        return;
      }
      warning = "TEXTNLP_FAST_ISA names an instruction set that this build or processor lacks; the best one runs";
    }
    for (const Kernels& candidate : kTable) {
      if (candidate.supported()) {
        row = &candidate;
        return;
      }
    }
  }
};

Choice& choice() noexcept {
  static Choice chosen;
  return chosen;
}

}  // namespace

const Kernels& kernels() noexcept { return *choice().row.load(std::memory_order_relaxed); }
const char* isa_name() noexcept { return kernels().name; }
const char* isa_warning() noexcept { return choice().warning; }

unsigned available_isas(const char** names, unsigned capacity) noexcept {
  unsigned count = 0;
  for (const Kernels& row : kTable) {
    if (!row.supported()) continue;
    if (count < capacity) names[count] = row.name;
    ++count;
  }
  return count;
}

bool force_isa(const char* name) noexcept {
  const Kernels* found = find(name);
  if (found == nullptr) return false;
  choice().row.store(found, std::memory_order_relaxed);
  return true;
}

unsigned default_threads() noexcept {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    const int count = CPU_COUNT(&set);
    if (count > 0) return static_cast<unsigned>(count);
  }
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count == 0 ? 1 : count;
}

}  // namespace textnlp_fast
