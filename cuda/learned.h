// The elements of learned frames: a warp follows the chain of the pair, group by group.
#pragma once
#include "codec/learned.h"
#include "cuda/sparse.h"

namespace textnlp_fast::device {

// The chances that a warp holds, by context, of an element to change, of a size to be larger than 1, and to go further.
constexpr unsigned kChanged = 0;
constexpr unsigned kLarger = simt::kWarp;
constexpr unsigned kFurther = 2 * simt::kWarp;
// Cold contexts share one behind those that are listed: if all are listed, there are no cold ones.
static_assert(kMaxContexts == simt::kWarp);

// How far the next element of a context moved, by more than 1.
template <class U>
TEXTNLP_FAST_DEVICE U take_size(PairReader& in, WarpChances& chances, unsigned context, TokenScheme scheme) {
  const unsigned last = last_bucket(scheme, 8 * sizeof(U));
  unsigned bucket = 2;
  while (bucket < last && chances.read(in, kFurther + context)) ++bucket;
  const unsigned token = 2 * bucket - 1;
  const unsigned bits = raw_bits_of(token, scheme);
  std::uint64_t raw = 0;
  for (unsigned done = 0; done < bits; done += 16) {
    raw |= static_cast<std::uint64_t>(in.bits(bits - done < 16 ? bits - done : 16)) << done;
  }
  return static_cast<U>(token_origin(token, scheme) + raw);
}

template <class U>
TEXTNLP_FAST_DEVICE void move_element(std::uint8_t* out, std::uint32_t place, U size, bool negative, bool is_float) {
  const U residual = negative ? static_cast<U>(U{0} - size) : size;
  store<U>(out, place, apply_residual(load<U>(out, place), residual, is_float));
}

// What the row of elements becomes. Signs behind the pair are at hand; elements whose signs are in the states wait.
template <class U>
TEXTNLP_FAST_DEVICE bool take_changes(PairReader& in, SparseShared& shared, Row<U>& row, const Found& found,
                                      std::uint8_t* out) {
  const DeltaRule rule = shared.rule;
  const unsigned cold = shared.kinds.listed;
  const std::uint8_t* const signs = shared.reader.at;
  const auto behind = static_cast<std::size_t>(shared.reader.end - signs);
  WarpChances chances;
  std::size_t told = 0;
  std::size_t first = 0;
  std::uint32_t place = 0;
  for (unsigned have = row.next(&place); have != 0; first += have, have = row.next(&place)) {
    const U from = simt::lane() < have ? load<U>(out, place) : U{0};
    const unsigned mine = context_of(from, rule);
    std::uint32_t changed = 0;
    for (unsigned n = 0; n < have; ++n) {
      const unsigned context = simt::shuffle(mine, n);
      const bool moves = first + n >= found.listed || chances.read(in, kChanged + context);
      changed |= (moves ? 1u : 0u) << n;
    }
    const unsigned shared_context = mine < cold ? mine : cold;
    std::uint32_t larger = 0;
    for (std::uint32_t left = changed; left != 0; left &= left - 1) {
      const unsigned n = simt::lowest_bit(left);
      larger |= (chances.read(in, kLarger + simt::shuffle(shared_context, n)) ? 1u : 0u) << n;
    }
    U size = 1;
    for (std::uint32_t left = larger; left != 0; left &= left - 1) {
      const unsigned n = simt::lowest_bit(left);
      const U found_size = take_size<U>(in, chances, simt::shuffle(shared_context, n), rule.scheme);
      if (simt::lane() == n) size = found_size;
    }
    const std::size_t number = told + simt::count_bits(changed & simt::lanes_below());
    told += simt::count_bits(changed);
    const bool moved = (changed >> simt::lane() & 1) != 0;
    if (moved && number < 8 * behind) {
      move_element(out, place, size, (signs[number / 8] >> number % 8 & 1) != 0, rule.element.is_float);
    } else if (moved && number - 8 * behind < kSignsInStates) {
      shared.waiting.places[number - 8 * behind] = place;
      shared.waiting.sizes[number - 8 * behind] = size;
    }
  }
  simt::sync_warp();
  if (!in.used_up() || told < 8 * behind || told - 8 * behind > kSignsInStates) return false;
  const std::size_t waiting = told - 8 * behind;
  const std::uint64_t held = in.held();
  if (held >> waiting != 0) return false;
  for (std::size_t i = simt::lane(); i < waiting; i += simt::kWarp) {
    move_element(out, shared.waiting.places[i], static_cast<U>(shared.waiting.sizes[i]), (held >> i & 1) != 0,
                 rule.element.is_float);
  }
  simt::sync_warp();
  return true;
}

}  // namespace textnlp_fast::device
