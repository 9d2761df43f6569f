#include "codec/pair_rans.h"

namespace textnlp_fast {

void PairWriter::write(Sink& out, std::uint64_t held) {
  const std::uint64_t next = kPairFloor | (held & (kPairFloor - 1));
  const std::uint64_t other = kPairFloor | held >> kHeldBits;
  const bool swapped = symbols_.size() % 2 != 0;
  std::uint64_t even = swapped ? other : next;
  std::uint64_t odd = swapped ? next : other;
  if (words_.size() < symbols_.size()) words_.resize(symbols_.size());
  // One word a symbol at most: written downwards from the end.
  std::uint32_t* const end = words_.data() + words_.size();
  std::uint32_t* first = end;
  auto code = [&](std::uint64_t& state, const Symbol& symbol) {
    if (state >= static_cast<std::uint64_t>(symbol.freq) << (63 - symbol.log)) {
      *--first = static_cast<std::uint32_t>(state);
      state >>= 32;
    }
    state = ((state / symbol.freq) << symbol.log) + state % symbol.freq + symbol.start;
  };
  // Two at a time, so that both states stay in registers.
  std::size_t left = symbols_.size();
  if (left % 2 != 0) code(even, symbols_[--left]);
  for (; left != 0; left -= 2) {
    code(odd, symbols_[left - 1]);
    code(even, symbols_[left - 2]);
  }
  const std::uint64_t states[2] = {even, odd};
  out.bytes(states, sizeof states);
  out.varint(static_cast<std::size_t>(end - first));
  out.bytes(first, static_cast<std::size_t>(end - first) * sizeof(std::uint32_t));
}

}  // namespace textnlp_fast
