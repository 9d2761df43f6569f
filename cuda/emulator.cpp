#include "cuda/emulator.h"

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace textnlp_fast::simt::emulator {
namespace {

constexpr unsigned kWarp = 32;
constexpr std::size_t kStackBytes = std::size_t{64} << 10;

enum class Wait { nothing, ballot, shuffle, warp, block, finished };

const char* name_of(Wait wait) {
  switch (wait) {
    case Wait::ballot: return "a ballot";
    case Wait::shuffle: return "a shuffle";
    case Wait::warp: return "sync_warp";
    case Wait::block: return "sync_block";
    case Wait::finished: return "the end";
    case Wait::nothing: break;
  }
  return "nothing";
}

// A switch of stacks without a system call where that is easy to write: there are two for every lane and collective.
#if defined(__x86_64__)
#define TEXTNLP_FAST_OWN_SWITCH 1
extern "C" void textnlp_fast_switch(void** save, void* load);
asm(R"(
.text
.globl textnlp_fast_switch
.hidden textnlp_fast_switch
.type textnlp_fast_switch, @function
textnlp_fast_switch:
  endbr64
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size textnlp_fast_switch, . - textnlp_fast_switch
)");
#else
#define TEXTNLP_FAST_OWN_SWITCH 0
#endif

struct Fiber {
  std::unique_ptr<unsigned char[]> stack;
#if TEXTNLP_FAST_OWN_SWITCH
  void* sp = nullptr;
#else
  ucontext_t context;
#endif
  Wait wait = Wait::nothing;
  std::uint64_t given = 0;  // to a collective
  unsigned from = 0;
  std::uint64_t taken = 0;  // from it
};

struct Machine {
  Launch shape{};
  std::size_t block = 0;
  unsigned current = 0;
  void (*body)(const void*) = nullptr;
  const void* argument = nullptr;
  std::vector<Fiber> fibers;
  std::vector<std::uint64_t> shared;
  std::uint32_t dice = 1;
#if TEXTNLP_FAST_OWN_SWITCH
  void* scheduler = nullptr;
#else
  ucontext_t scheduler;
#endif
};

thread_local Machine machine;
thread_local std::size_t calls_to_failure = 0;  // 0: none fails
thread_local std::size_t blocks_alive = 0;

[[noreturn]] void stop(const char* what, unsigned lane_a, Wait a, unsigned lane_b, Wait b) {
  std::fprintf(stderr, "emulated kernel: %s: block %zu, thread %u is at %s, thread %u at %s\n", what, machine.block,
               lane_a, name_of(a), lane_b, name_of(b));
  std::abort();
}

void leave(Fiber& fiber) {
#if TEXTNLP_FAST_OWN_SWITCH
  textnlp_fast_switch(&fiber.sp, machine.scheduler);
#else
  swapcontext(&fiber.context, &machine.scheduler);
#endif
}

void enter(Fiber& fiber) {
#if TEXTNLP_FAST_OWN_SWITCH
  textnlp_fast_switch(&machine.scheduler, fiber.sp);
#else
  swapcontext(&machine.scheduler, &fiber.context);
#endif
}

void fiber_main() {
  Fiber& self = machine.fibers[machine.current];
  machine.body(machine.argument);
  self.wait = Wait::finished;
  leave(self);
  std::abort();  // nobody enters a fiber that is done
}

void prepare(Fiber& fiber) {
  if (!fiber.stack) fiber.stack.reset(new unsigned char[kStackBytes]);
  fiber.wait = Wait::nothing;
#if TEXTNLP_FAST_OWN_SWITCH
  // As if it had been called: six registers, then the address to return to, and the stack as a call leaves it.
  auto top = reinterpret_cast<std::uintptr_t>(fiber.stack.get() + kStackBytes) & ~std::uintptr_t{15};
  top -= 8 * sizeof(void*);
  auto* slots = reinterpret_cast<void**>(top);
  for (unsigned i = 0; i < 8; ++i) slots[i] = nullptr;
  slots[6] = reinterpret_cast<void*>(&fiber_main);
  fiber.sp = static_cast<void*>(slots);
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, &fiber_main, 0);
#endif
}

unsigned roll() {
  machine.dice = machine.dice * 1664525u + 1013904223u;
  return machine.dice >> 16;
}

// Runs every lane of a warp that waits for nothing up to its next collective, in a new order.
bool run_lanes(unsigned first) {
  const unsigned turn = roll() | 1;
  const unsigned start = roll();
  bool ran = false;
  for (unsigned n = 0; n < kWarp; ++n) {
    const unsigned i = first + (start + n * turn) % kWarp;
    if (machine.fibers[i].wait != Wait::nothing) continue;
    machine.current = i;
    enter(machine.fibers[i]);
    ran = true;
  }
  return ran;
}

// Serves the collective at which the whole warp waits.
bool settle_warp(unsigned first) {
  Fiber* const lanes = &machine.fibers[first];
  const Wait wait = lanes[0].wait;
  for (unsigned i = 1; i < kWarp; ++i) {
    if (lanes[i].wait != wait) stop("lanes of a warp part", first, wait, first + i, lanes[i].wait);
  }
  if (wait == Wait::block || wait == Wait::finished) return false;
  std::uint64_t votes = 0;
  for (unsigned i = 0; i < kWarp; ++i) votes |= (lanes[i].given & 1) << i;
  for (unsigned i = 0; i < kWarp; ++i) {
    if (wait == Wait::ballot) lanes[i].taken = votes;
    if (wait == Wait::shuffle) lanes[i].taken = lanes[lanes[i].from % kWarp].given;
    lanes[i].wait = Wait::nothing;
  }
  return true;
}

void run_block() {
  const unsigned warps = machine.shape.threads / kWarp;
  for (Fiber& fiber : machine.fibers) prepare(fiber);
  for (;;) {
    const unsigned start = roll();
    for (unsigned w = 0; w < warps; ++w) {
      const unsigned first = (start + w) % warps * kWarp;
      while (run_lanes(first) && settle_warp(first)) {
      }
    }
    // All warps are at the block's barrier or at the end.
    const Wait wait = machine.fibers[0].wait;
    for (unsigned i = kWarp; i < machine.shape.threads; i += kWarp) {
      if (machine.fibers[i].wait != wait) stop("warps of a block part", 0, wait, i, machine.fibers[i].wait);
    }
    if (wait == Wait::finished) return;
    for (Fiber& fiber : machine.fibers) fiber.wait = Wait::nothing;
  }
}

Fiber& wait_at(Wait wait) {
  Fiber& self = machine.fibers[machine.current];
  self.wait = wait;
  leave(self);
  return self;
}

}  // namespace

void launch(const Launch& shape, void (*body)(const void*), const void* argument) {
  if (shape.threads == 0 || shape.threads % kWarp != 0) std::abort();
  machine.shape = shape;
  machine.body = body;
  machine.argument = argument;
  machine.fibers.resize(shape.threads);
  for (machine.block = 0; machine.block < shape.blocks; ++machine.block) {
    // Shared memory comes with whatever was in it.
    machine.shared.assign((shape.shared_bytes + 15) / 8, 0xa5a5a5a5a5a5a5a5u);
    run_block();
  }
}

void fail_call(std::size_t number) { calls_to_failure = number + 1; }
bool call_fails() {
  if (calls_to_failure == 0) return false;
  --calls_to_failure;
  return calls_to_failure == 0;
}
std::size_t live_blocks() { return blocks_alive; }
void count_block(int change) { blocks_alive += static_cast<std::size_t>(change); }

unsigned thread() { return machine.current; }
unsigned block() { return static_cast<unsigned>(machine.block); }
unsigned block_threads() { return machine.shape.threads; }
unsigned blocks() { return static_cast<unsigned>(machine.shape.blocks); }
unsigned char* shared() {
  auto at = reinterpret_cast<std::uintptr_t>(machine.shared.data());
  return reinterpret_cast<unsigned char*>((at + 15) & ~std::uintptr_t{15});
}

unsigned ballot(bool vote) {
  machine.fibers[machine.current].given = vote ? 1 : 0;
  return static_cast<unsigned>(wait_at(Wait::ballot).taken);
}

std::uint64_t shuffle(std::uint64_t bits, unsigned from_lane) {
  Fiber& self = machine.fibers[machine.current];
  self.given = bits;
  self.from = from_lane;
  return wait_at(Wait::shuffle).taken;
}

void sync_warp() { wait_at(Wait::warp); }
void sync_block() { wait_at(Wait::block); }

}  // namespace textnlp_fast::simt::emulator
