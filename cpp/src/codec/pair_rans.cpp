#include "codec/pair_rans.h"

namespace textnlp_fast {

void PairWriter::write(Sink& out) {
  std::uint64_t states[2] = {kPairFloor, kPairFloor};
  if (words_.size() < symbols_.size()) words_.resize(symbols_.size());
  // One word a symbol at most: written downwards from the end.
  std::size_t first = words_.size();
  for (std::size_t i = symbols_.size(); i-- > 0;) {
    const Symbol& symbol = symbols_[i];
    std::uint64_t& state = states[i & 1];
    if (state >= static_cast<std::uint64_t>(symbol.freq) << (63 - symbol.log)) {
      words_[--first] = static_cast<std::uint32_t>(state);
      state >>= 32;
    }
    state = ((state / symbol.freq) << symbol.log) + state % symbol.freq + symbol.start;
  }
  out.bytes(states, sizeof states);
  out.varint(words_.size() - first);
  out.bytes(words_.data() + first, (words_.size() - first) * sizeof(std::uint32_t));
}

}  // namespace textnlp_fast
