// Runs kernels on a CPU for the tests: blocks one after the other, the threads of a block as fibers that give way at
// collectives only, in an order that changes. It stops the program with a sentence where a device would hang or do
// anything: when lanes of a warp wait at different collectives, or threads of a block at none while others wait.
#pragma once
#include <cstddef>
#include <cstdint>

namespace textnlp_fast::simt::emulator {

struct Launch {
  std::size_t blocks;
  unsigned threads;  // a block; a multiple of 32
  std::size_t shared_bytes;
};

// Runs body(argument) in every thread. Not reentrant; one launch at a time in a process thread.
void launch(const Launch& launch, void (*body)(const void*), const void* argument);

// What tests make go wrong: the `number`-th call of the runtime from now on fails (0: the next), and only that one.
void fail_call(std::size_t number);
// Whether that was a call that fails; every call of the runtime asks once.
bool call_fails();
// Blocks of device memory that nobody has given back.
std::size_t live_blocks();
void count_block(int change);

unsigned thread();
unsigned block();
unsigned block_threads();
unsigned blocks();
unsigned char* shared();

unsigned ballot(bool vote);
std::uint64_t shuffle(std::uint64_t bits, unsigned from_lane);
void sync_warp();
void sync_block();

}  // namespace textnlp_fast::simt::emulator
