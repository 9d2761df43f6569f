// Frequency tables: from counts to shares of a power of two, to bytes and back.
#pragma once
#include <cstdint>

#include "codec/bits.h"
#include "codec/rans.h"

namespace textnlp_fast {

// Shannon's bound for coding these counts under their own distribution, in bits.
double entropy_bits(const std::uint32_t* counts, unsigned symbols) noexcept;

// Bits that `counts` take under the shares `freq` of 2^table_log.
double coded_bits(const std::uint32_t* counts, const std::uint16_t* freq, unsigned symbols,
                  unsigned table_log) noexcept;

// Shares that sum to 2^table_log, at least 1 for every symbol that occurs and 0 for the others. Needs one count that is
// not zero, and at most 2^table_log such counts.
void normalise(const std::uint32_t* counts, unsigned symbols, unsigned table_log, std::uint16_t* freq) noexcept;

// docs/format.md, "Table". `symbols` is one more than the last symbol with a share.
void write_table(BitWriter& bits, const std::uint16_t* freq, unsigned symbols);

// Shares with their starts, for the encoder.
void build_encode_symbols(const std::uint16_t* freq, unsigned symbols, EncodeSymbol* out) noexcept;

// Writes the 2^table_log slot entries of one table.
void build_slots(const std::uint16_t* freq, unsigned symbols, std::uint32_t* slots) noexcept;

}  // namespace textnlp_fast
