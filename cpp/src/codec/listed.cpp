#include "codec/listed.h"

#include <algorithm>
#include <cstring>

#include "codec/by_size.h"
#include "codec/codec_scalar.h"
#include "codec/places.h"
#include "codec/sparse_rule.h"

namespace textnlp_fast {
namespace {

// Vector kernels read and write whole registers.
constexpr std::size_t kSlack = 64;
// Prefetchers of the hardware stop where pages end: so many bytes ahead are asked for.
constexpr std::size_t kAhead = 4096;
constexpr int kToRead = 0;
constexpr int kToWrite = 1;

// A hint: what it names need not be there.
template <int kPurpose>
void prefetch(const std::uint8_t* data, std::size_t size) {
  for (std::size_t at = 0; at < size; at += 64) __builtin_prefetch(data + at, kPurpose);
}

// Copies the base on the way, a few blocks at a time: one by one each copy would wait for memory, and of many the first
// would have left the cache when they are looked at.
void copy_piece(const std::uint8_t* base, std::size_t count, std::size_t at, unsigned element_bytes,
                std::uint8_t* out) {
  constexpr std::size_t kPiece = std::size_t{4} * kBlockElements;
  prefetch<kToRead>(base + at * element_bytes + kAhead, std::size_t{kBlockElements} * element_bytes);
  prefetch<kToWrite>(out + at * element_bytes + kAhead, std::size_t{kBlockElements} * element_bytes);
  if (at % kPiece != 0) return;
  std::memcpy(out + at * element_bytes, base + at * element_bytes, std::min(kPiece, count - at) * element_bytes);
}

// Of so few, places are listed; masks serve the others.
constexpr unsigned kFew = 64;

template <class U>
void gather(const std::uint8_t* from, const std::uint16_t* places, unsigned count, std::uint8_t* to) {
  for (unsigned i = 0; i < count; ++i) scalar::store<U>(to, i, scalar::load<U>(from, places[i]));
}

template <class U>
void scatter(const std::uint8_t* from, const std::uint16_t* places, unsigned count, std::uint8_t* to) {
  for (unsigned i = 0; i < count; ++i) scalar::store<U>(to, places[i], scalar::load<U>(from, i));
}

// The listed elements of a block, whose places stand behind those of the blocks before, to behind theirs.
void pack_block(const CodecKernels& kernel, unsigned element_bytes, const std::uint8_t* from,
                const std::uint32_t* masks, unsigned rows, unsigned found, const Listed& listed, std::uint8_t* packed) {
  packed += listed.count * element_bytes;
  if (found > kFew) {
    kernel.sparse_pick(element_bytes, from, masks, rows, packed);
  } else {
    by_size(element_bytes,
            [&](auto zero) { gather<decltype(zero)>(from, listed.places.data() + listed.few, found, packed); });
  }
}

// Collects the listed elements of a block of the reader's, `at` elements from the first.
void list_block(const CodecKernels& kernel, unsigned element_bytes, const std::uint8_t* base, std::size_t count,
                std::size_t at, const SparseBlock& block, Listed& listed) {
  const auto rows = static_cast<unsigned>((count + kLanes - 1) / kLanes);
  const unsigned found = kernel.sparse_list(block.listed, rows, listed.places.data() + listed.few);
  pack_block(kernel, element_bytes, base, block.listed, rows, found, listed, listed.base.data());
  listed.in_block[at / kBlockElements] = static_cast<std::uint16_t>(found);
  listed.count += found;
  if (found > kFew) {
    std::memcpy(listed.masks.data() + at / kLanes, block.listed, rows * sizeof *block.listed);
  } else {
    listed.few += found;
  }
}

// By columns, then rows, as places are told.
unsigned order_events(const std::uint32_t* masks, std::uint16_t* events) {
  unsigned count = 0;
  for (unsigned row = 0; row < kBlockRows; ++row) {
    for (std::uint32_t left = masks[row]; left != 0; left &= left - 1) {
      const auto lane = static_cast<unsigned>(__builtin_ctz(left));
      unsigned at = count++;
      for (; at > 0 && events[at - 1] % kLanes > lane; --at) events[at] = events[at - 1];
      events[at] = static_cast<std::uint16_t>(row * kLanes + lane);
    }
  }
  return count;
}

void copy_events(const std::uint8_t* from, unsigned element_bytes, const Listed& listed, std::uint8_t* to) {
  by_size(element_bytes, [&](auto zero) {
    using U = decltype(zero);
    std::size_t at = listed.count;
    for (const std::uint32_t place : listed.events) scalar::store<U>(to, at++, scalar::load<U>(from, place));
  });
}

template <class U>
void put_all(PairWriter& out, const DeltaRule& rule, const DeltaEncodeTables& tables, const Listed& listed) {
  for (std::size_t i = 0; i < listed.total(); ++i) {
    const U from = scalar::load<U>(listed.base.data(), i);
    const U to = scalar::load<U>(listed.target.data(), i);
    const Token token = token_of(residual_of(to, from, rule.element.is_float), rule.scheme);
    const EncodeSymbol& symbol = tables.symbols[scalar::context_of(from, rule)][token.token];
    out.put(symbol.start, symbol.freq, rule.table_log);
    for (unsigned done = 0; done < token.raw_bits; done += 16) {
      const unsigned bits = std::min(16u, token.raw_bits - done);
      out.put_bits(static_cast<std::uint32_t>(token.raw >> done) & ((1u << bits) - 1), bits);
    }
  }
}

template <class U>
void take_all(PairReader& from_words, const DeltaDecoder& decoder, Listed& listed) {
  const DeltaRule rule = decoder.rule;
  const unsigned log = rule.table_log;
  const std::uint32_t* const slots = decoder.tables.slots;
  const scalar::TokenMeaning meaning(rule.scheme, decoder.tables.tokens);
  // A copy, for the states to stay in registers.
  PairReader in = from_words;
  for (std::size_t i = 0; i < listed.total(); ++i) {
    const U from = scalar::load<U>(listed.base.data(), i);
    const unsigned context = scalar::context_of(from, rule);
    const std::uint32_t slot = in.slot(log);
    unsigned token = 0;
    if (slots != nullptr) {
      const std::uint32_t entry = slots[static_cast<std::size_t>(context) << log | slot];
      token = entry_symbol(entry);
      in.take(entry_offset(entry), entry_freq(entry), log);
    } else {
      const std::uint16_t* const starts = decoder.tables.cumulative[context];
      token = scalar::find_token(starts, slot);
      in.take(slot - starts[token], static_cast<std::uint32_t>(starts[token + 1] - starts[token]), log);
    }
    std::uint64_t raw = 0;
    for (unsigned done = 0; done < meaning.bits[token]; done += 16) {
      raw |= static_cast<std::uint64_t>(in.bits(std::min(16u, meaning.bits[token] - done))) << done;
    }
    const auto residual = static_cast<U>(meaning.origin[token] + ((raw ^ meaning.sign[token]) - meaning.sign[token]));
    scalar::store<U>(listed.target.data(), i, apply_residual(from, residual, rule.element.is_float));
  }
  from_words = in;
}

}  // namespace

void Listed::prepare(std::size_t elements, unsigned element_bytes) {
  const std::size_t bytes = elements * element_bytes + kSlack;
  if (base.size() < bytes) base.resize(bytes);
  if (target.size() < bytes) target.resize(bytes);
  const std::size_t rows = blocks_of(elements) * kBlockRows;
  if (masks.size() < rows) masks.resize(rows);
  if (in_block.size() < blocks_of(elements)) in_block.resize(blocks_of(elements));
  // A block's places may all be listed before it is known that they are many.
  if (places.size() < elements + kBlockElements + kLanes) places.resize(elements + kBlockElements + kLanes);
  events.clear();
  count = 0;
  few = 0;
}

void find_places(const CodecKernels& kernel, unsigned element_bytes, const std::uint8_t* target,
                 const std::uint8_t* base, std::size_t count, const SparseRule& rule, const std::uint32_t* changed,
                 Listed& listed, PairWriter& out) {
  PlaceModel model;
  SparseBlock block;
  const bool hazards = has_hazards(rule);
  for (std::size_t at = 0; at < count; at += kBlockElements) {
    const std::size_t here = std::min<std::size_t>(kBlockElements, count - at);
    const auto rows = static_cast<unsigned>((here + kLanes - 1) / kLanes);
    const std::uint32_t* const masks = changed + at / kLanes;
    std::uint32_t any = 0;
    for (unsigned row = 0; row < rows; ++row) any |= masks[row];
    if (rule.listed != 0) write_alive(out, model, any != 0);
    if (rule.listed != 0 && any == 0) continue;
    if (any == 0 && !hazards) continue;
    prefetch<kToRead>(base + at * element_bytes + kAhead, std::size_t{kBlockElements} * element_bytes);
    prefetch<kToRead>(target + at * element_bytes + kAhead, std::size_t{kBlockElements} * element_bytes);
    kernel.sparse_scan(element_bytes, base + at * element_bytes, here, &rule, &block);
    const unsigned here_listed = kernel.sparse_list(block.listed, rows, listed.places.data());
    pack_block(kernel, element_bytes, base + at * element_bytes, block.listed, rows, here_listed, listed,
               listed.base.data());
    pack_block(kernel, element_bytes, target + at * element_bytes, block.listed, rows, here_listed, listed,
               listed.target.data());
    listed.count += here_listed;
    if (block.columns[kLanes] == 0) continue;
    std::uint32_t cold[kBlockRows] = {};
    for (unsigned row = 0; row < rows; ++row) cold[row] = masks[row] & ~block.listed[row];
    std::uint16_t events[kBlockElements];
    const unsigned found = order_events(cold, events);
    write_events(out, model, block, events, found);
    for (unsigned n = 0; n < found; ++n) listed.events.push_back(static_cast<std::uint32_t>(at + events[n]));
  }
  copy_events(base, element_bytes, listed, listed.base.data());
  copy_events(target, element_bytes, listed, listed.target.data());
}

bool read_places(const CodecKernels& kernel, unsigned element_bytes, const std::uint8_t* base, std::size_t count,
                 const SparseRule& rule, PairReader& in, Listed& listed, std::uint8_t* out) {
  PlaceModel model;
  SparseBlock block;
  const std::size_t block_bytes = std::size_t{kBlockElements} * element_bytes;
  for (std::size_t at = 0; at < count; at += kBlockElements) {
    const std::size_t here = std::min<std::size_t>(kBlockElements, count - at);
    const std::uint8_t* const from = base + at * element_bytes;
    if (out == base) {
      prefetch<kToRead>(from + kAhead, block_bytes);
    } else {
      copy_piece(base, count, at, element_bytes, out);
    }
    listed.in_block[at / kBlockElements] = 0;
    if (rule.listed == 0 || read_alive(in, model)) {
      kernel.sparse_scan(element_bytes, from, here, &rule, &block);
      list_block(kernel, element_bytes, from, here, at, block, listed);
      std::uint16_t events[kBlockElements + 1];
      const unsigned found = block.columns[kLanes] == 0 ? 0 : read_events(in, model, block, events);
      if (found > kBlockElements || in.overrun) return false;
      for (unsigned n = 0; n < found; ++n) listed.events.push_back(static_cast<std::uint32_t>(at + events[n]));
    }
  }
  copy_events(base, element_bytes, listed, listed.base.data());
  return true;
}

void place_targets(const CodecKernels& kernel, unsigned element_bytes, const Listed& listed, std::size_t count,
                   std::uint8_t* out) {
  const std::uint8_t* packed = listed.target.data();
  const std::uint16_t* places = listed.places.data();
  for (std::size_t at = 0; at < count; at += kBlockElements) {
    const auto rows = static_cast<unsigned>((std::min<std::size_t>(kBlockElements, count - at) + kLanes - 1) / kLanes);
    const unsigned found = listed.in_block[at / kBlockElements];
    if (found > kFew) {
      kernel.sparse_place(element_bytes, packed, listed.masks.data() + at / kLanes, rows, out + at * element_bytes);
    } else {
      by_size(element_bytes,
              [&](auto zero) { scatter<decltype(zero)>(packed, places, found, out + at * element_bytes); });
      places += found;
    }
    packed += static_cast<std::size_t>(found) * element_bytes;
  }
  by_size(element_bytes, [&](auto zero) {
    using U = decltype(zero);
    std::size_t at = 0;
    for (const std::uint32_t place : listed.events) scalar::store<U>(out, place, scalar::load<U>(packed, at++));
  });
}

void put_values(PairWriter& out, unsigned element_bytes, const DeltaRule& rule, const DeltaEncodeTables& tables,
                const Listed& listed) {
  by_size(element_bytes, [&](auto zero) { put_all<decltype(zero)>(out, rule, tables, listed); });
}

void take_values(PairReader& in, unsigned element_bytes, const DeltaDecoder& decoder, Listed& listed) {
  by_size(element_bytes, [&](auto zero) { take_all<decltype(zero)>(in, decoder, listed); });
}

}  // namespace textnlp_fast
