// The elements of learned frames, told bit by bit: a warp looks groups of elements up, one lane follows the chances.
#pragma once
#include "codec/learned_choice.h"
#include "cuda/encode_places.h"

namespace textnlp_fast::device {

// Signs as they come, kept in the room for directions.
struct SignWriter {
  std::uint32_t* to;
  std::uint32_t count = 0;
  std::uint32_t word = 0;

  TEXTNLP_FAST_DEVICE void put(bool negative) {
    word |= (negative ? 1u : 0u) << count % 32;
    if (++count % 32 != 0) return;
    to[count / 32 - 1] = word;
    word = 0;
  }

  // The bits of the states.
  TEXTNLP_FAST_DEVICE std::uint64_t finish() {
    to[count / 32] = word;
    std::uint64_t held = 0;
    const std::size_t first = 8 * signs_behind(count);
    for (std::size_t i = first; i < count; ++i) {
      held |= static_cast<std::uint64_t>(to[i / 32] >> i % 32 & 1) << (i - first);
    }
    return held;
  }
};

// A group's symbols from `to` on, by one thread; returns where they end.
template <class U>
TEXTNLP_FAST_DEVICE std::uint32_t* tell_group(const Encoding& encoding, unsigned here, std::uint32_t changed,
                                              std::uint32_t negative, std::uint32_t* to, SignWriter& signs) {
  ChangesRoom& room = encoding.shared.changes;
  const unsigned cold = encoding.shared.split.listed;
  const unsigned last = last_bucket(dense_scheme(sizeof(U)), 8 * sizeof(U));
  for (unsigned n = 0; n < here; ++n) {
    const unsigned context = room.contexts[n];
    if (context < cold) *to++ = bit_symbol(room.model.changed[context], (changed >> n & 1) != 0);
  }
  auto shared_context = [&](unsigned n) { return room.contexts[n] < cold ? room.contexts[n] : cold; };
  std::uint32_t larger = 0;
  for (std::uint32_t left = changed; left != 0; left &= left - 1) {
    const unsigned n = simt::lowest_bit(left);
    const bool more = bucket_of(room.tokens[n].token) > 1;
    *to++ = bit_symbol(room.model.larger[shared_context(n)], more);
    larger |= (more ? 1u : 0u) << n;
    signs.put((negative >> n & 1) != 0);
  }
  for (; larger != 0; larger &= larger - 1) {
    const unsigned n = simt::lowest_bit(larger);
    const Token token = room.tokens[n];
    const unsigned bucket = bucket_of(token.token);
    Chance& further = room.model.further[shared_context(n)];
    for (unsigned lower = 2; lower < last && lower <= bucket; ++lower) *to++ = bit_symbol(further, lower < bucket);
    for (unsigned done = 0; done < token.raw_bits; done += 16) {
      const unsigned bits = token.raw_bits - done < 16 ? token.raw_bits - done : 16;
      *to++ = raw_symbol(static_cast<std::uint32_t>(token.raw >> done) & ((1u << bits) - 1), bits);
    }
  }
  return to;
}

// The changes' symbols, behind those of the places, and their signs; by one warp.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void tell_changes(const Encoding& encoding, std::size_t total) {
  EncodeShared& shared = encoding.shared;
  ChangesRoom& room = shared.changes;
  const DeltaRule rule = shared.rule;
  for (unsigned c = simt::lane(); c <= kMaxContexts; c += simt::kWarp) {
    if (c < kMaxContexts) room.model.changed[c] = Chance{};
    room.model.larger[c] = Chance{};
    room.model.further[c] = Chance{};
  }
  std::uint32_t* to = encoding.room.symbols + shared.symbols;
  SignWriter signs{encoding.room.directions};
  for (std::size_t first = 0; first < total; first += kLearnedGroup) {
    const std::size_t i = first + simt::lane();
    U residual = 0;
    if (i < total) {
      const U from = load<U>(encoding.room.from, i);
      residual = residual_of(load<U>(encoding.room.to, i), from, rule.element.is_float);
      room.contexts[simt::lane()] = static_cast<std::uint8_t>(delta_context(from, rule));
      room.tokens[simt::lane()] = token_of(residual, dense_scheme(sizeof(U)));
    }
    const std::uint32_t changed = simt::ballot(residual != 0);
    const std::uint32_t negative = simt::ballot(residual >> (8 * sizeof(U) - 1) != 0);
    simt::sync_warp();
    const auto here = static_cast<unsigned>(total - first < kLearnedGroup ? total - first : kLearnedGroup);
    if (simt::lane() == 0) to = tell_group<U>(encoding, here, changed, negative, to, signs);
    simt::sync_warp();
  }
  if (simt::lane() == 0) {
    shared.symbols = static_cast<std::uint32_t>(to - encoding.room.symbols);
    shared.held = signs.finish();
    shared.signs = signs.count;
  }
  simt::sync_warp();
}

// The body of a learned frame.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void put_learned(const Encoding& encoding, std::size_t total, std::size_t limit) {
  EncodeShared& shared = encoding.shared;
  if (simt::warp() == 0) {
    tell_changes<U>(encoding, total);
    put_pair(encoding, shared.held);
  }
  simt::sync_block();
  const std::size_t behind = signs_behind(shared.signs);
  if (simt::thread() == 0) {
    Sink out(encoding.body(), encoding.size);
    choice::put_split(out, shared.rule, shared.split);
    choice::put_scheme(out, dense_scheme(sizeof(U)));
    const bool fits = lay_pair(encoding, out);
    const std::size_t end = shared.pair_at + sizeof(std::uint32_t) * std::size_t{shared.pair_words} + behind;
    shared.result = fits ? accepted(encoding, end, limit) : 0;
  }
  simt::sync_block();
  if (shared.result == 0) return;
  copy_pair(encoding);
  copy_shifted(reinterpret_cast<const std::uint8_t*>(encoding.room.directions),
               encoding.body() + (shared.result - behind), behind, simt::thread(), kEncodeThreads);
  simt::sync_block();
}

}  // namespace textnlp_fast::device
