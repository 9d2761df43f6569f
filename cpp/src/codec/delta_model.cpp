#include "codec/delta_model.h"

#include <algorithm>
#include <cstring>

#include "codec/table_reading.h"
#include "codec/tables.h"

namespace textnlp_fast {

unsigned most_tokens(const DeltaModel& model) noexcept { return choice::most_tokens(OneThread{}, model); }

double raw_bits(const DeltaModel& model, unsigned tokens) noexcept {
  return choice::raw_bits(OneThread{}, model, tokens);
}

void choose_tables(DeltaModel& model) noexcept {
  TableScratch scratch;
  choice::choose_tables(OneThread{}, model, scratch);
}

void write_rule(Sink& out, const DeltaRule& rule) { choice::put_rule(out, rule); }

void write_tables(Sink& out, const DeltaModel& model) { choice::put_tables(OneThread{}, out, model); }

bool read_tables(ByteReader& reader, Dtype dtype, DeltaDecoder& decoder) {
  return read_tables(reader, dtype, decoder.rule, decoder.freq);
}

void build_starts(DeltaDecoder& decoder) {
  decoder.tables.slots = nullptr;
  decoder.tables.tokens = 1;
  for (unsigned c = 0; c < decoder.rule.contexts; ++c) {
    const std::uint16_t* const freq = decoder.freq[c];
    decoder.tables.zero_freq[c] = freq[0];
    std::uint32_t start = 0;
    for (unsigned t = 0; t < kMaxTokens; ++t) {
      decoder.tables.cumulative[c][t] = static_cast<std::uint16_t>(start);
      start += freq[t];
      if (freq[t] != 0) decoder.tables.tokens = std::max(decoder.tables.tokens, t + 1);
    }
    decoder.tables.cumulative[c][kMaxTokens] = static_cast<std::uint16_t>(start);
  }
}

void build_decode_tables(DeltaDecoder& decoder) {
  build_starts(decoder);
  const unsigned log = decoder.rule.table_log;
  if (log > kMaxSlotLog) return;
  const std::size_t needed = static_cast<std::size_t>(decoder.rule.contexts) << log;
  if (decoder.slots.size() < needed) decoder.slots.resize(needed);
  decoder.tables.slots = decoder.slots.data();
  const std::size_t each = std::size_t{1} << log;
  for (unsigned c = 0; c < decoder.rule.contexts; ++c) {
    std::uint32_t* const slots = decoder.slots.data() + c * each;
    // Neighbours often share a table.
    if (c > 0 && std::memcmp(decoder.freq[c], decoder.freq[c - 1], sizeof decoder.freq[c]) == 0) {
      std::memcpy(slots, slots - each, each * sizeof *slots);
    } else {
      build_slots(decoder.freq[c], kMaxTokens, slots);
    }
  }
}

}  // namespace textnlp_fast
