// Which code runs: the instruction set picked at run time, and the threads that share the work.
#pragma once

namespace textnlp_fast {

// Name of the instruction set whose kernels run: "avx512", "avx2", "neon" or "portable". Chosen once, best first;
// the environment variable TEXTNLP_FAST_ISA forces one that this processor has.
const char* isa_name() noexcept;

// Why TEXTNLP_FAST_ISA was not obeyed (an unknown name, or one this processor lacks); "" otherwise.
const char* isa_warning() noexcept;

// Names of the instruction sets this build has and this processor runs, best first. Returns the count.
unsigned available_isas(const char** names, unsigned capacity) noexcept;

// Switches to the named instruction set for the whole process; false if it is not available here. For tests and
// benches; kernels already running finish on the old one.
bool force_isa(const char* name) noexcept;

// Threads a call with `threads = 0` uses: the processors this process may run on.
unsigned default_threads() noexcept;

}  // namespace textnlp_fast
