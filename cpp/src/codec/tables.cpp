#include "codec/tables.h"

#include "codec/codec_kernels.h"
#include "codec/table_choice.h"

namespace textnlp_fast {

double entropy_bits(const std::uint32_t* counts, unsigned symbols) noexcept {
  return choice::entropy_bits(OneThread{}, counts, symbols);
}

double coded_bits(const std::uint32_t* counts, const std::uint16_t* freq, unsigned symbols,
                  unsigned table_log) noexcept {
  return choice::coded_bits(OneThread{}, counts, freq, symbols, table_log);
}

void normalise(const std::uint32_t* counts, unsigned symbols, unsigned table_log, std::uint16_t* freq) noexcept {
  choice::normalise(OneThread{}, counts, symbols, table_log, freq);
}

void write_table(BitWriter& bits, const std::uint16_t* freq, unsigned symbols) {
  choice::put_table(bits, freq, symbols, choice::plan_table(OneThread{}, freq, symbols));
}

void build_encode_symbols(const std::uint16_t* freq, unsigned symbols, EncodeSymbol* out) noexcept {
  choice::build_encode_symbols(freq, symbols, out);
}

void build_slots(const std::uint16_t* freq, unsigned symbols, std::uint32_t* slots) noexcept {
  for (unsigned s = 0; s < symbols; ++s) {
    if (freq[s] == 0) continue;
    const std::uint32_t first = slot_entry(s, freq[s], 0);
    const std::uint32_t step = slot_entry(s, freq[s], 1) - first;
    // Four at a time, which compilers make one store of.
    std::uint32_t offset = 0;
    for (; offset + 4 <= freq[s]; offset += 4) {
      for (std::uint32_t k = 0; k < 4; ++k) slots[offset + k] = first + (offset + k) * step;
    }
    for (; offset < freq[s]; ++offset) slots[offset] = first + offset * step;
    slots += freq[s];
  }
}

}  // namespace textnlp_fast
