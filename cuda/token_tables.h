// Tables in shared memory: starts of symbols, and for parts of the slots the first symbol that reaches into them.
#pragma once
#include <cstdint>

#include "cuda/simt.h"

namespace textnlp_fast::device {

// Turns the shares of `symbols` symbols (a multiple of 32) into their starts, by one warp.
TEXTNLP_FAST_DEVICE void starts_of_shares(std::uint16_t* shares, unsigned symbols) {
  std::uint32_t before = 0;
  for (unsigned first = 0; first < symbols; first += simt::kWarp) {
    std::uint32_t total = 0;
    const std::uint32_t below = simt::sum_below(shares[first + simt::lane()], &total);
    shares[first + simt::lane()] = static_cast<std::uint16_t>(before + below);
    before += total;
  }
  simt::sync_warp();
}

// The symbol of a slot, from `symbol` on, which does not lie behind it.
TEXTNLP_FAST_DEVICE unsigned symbol_from(const std::uint16_t* starts, unsigned symbols, unsigned symbol,
                                         std::uint32_t slot) {
  while (symbol + 1 < symbols && starts[symbol + 1] <= slot) ++symbol;
  return symbol;
}

// Fills first[0, 2^parts_log): the symbol of the first slot of each part. By one warp.
TEXTNLP_FAST_DEVICE void find_parts(const std::uint16_t* starts, unsigned symbols, unsigned table_log,
                                    unsigned parts_log, std::uint8_t* first) {
  for (unsigned part = simt::lane(); part < 1u << parts_log; part += simt::kWarp) {
    const std::uint32_t slot = part << (table_log - parts_log);
    // The last symbol that starts at the slot or before.
    unsigned low = 0;
    for (unsigned step = symbols / 2; step != 0; step /= 2) low += starts[low + step] <= slot ? step : 0;
    first[part] = static_cast<std::uint8_t>(low);
  }
  simt::sync_warp();
}

TEXTNLP_FAST_DEVICE std::uint32_t share_at(const std::uint16_t* starts, unsigned symbols, unsigned table_log,
                                           unsigned symbol) {
  const std::uint32_t end = symbol + 1 < symbols ? starts[symbol + 1] : 1u << table_log;
  return end - starts[symbol];
}

}  // namespace textnlp_fast::device
