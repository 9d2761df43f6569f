#include "codec/learned.h"

#include <algorithm>
#include <cstring>

#include "codec/by_size.h"
#include "codec/codec_scalar.h"

namespace textnlp_fast {
namespace {

// A bit without a branch on it, which would be guessed wrong.
void write_straight(PairWriter& out, Chance& chance, std::uint32_t bit) {
  const std::uint32_t one = chance.share();
  const std::uint32_t zero = bit - 1;  // all ones if the bit is 0
  out.put(one & zero, (one ^ zero) + (((1u << kBitLog) + 1) & zero), kBitLog);
  chance.learn(bit != 0);
}

void put_size(PairWriter& out, Chance& further, const Token& token, unsigned last) {
  const unsigned bucket = bucket_of(token.token);
  for (unsigned lower = 2; lower < last && lower <= bucket; ++lower) write_bit(out, further, lower < bucket);
  for (unsigned done = 0; done < token.raw_bits; done += 16) {
    const unsigned bits = std::min(16u, token.raw_bits - done);
    out.put_bits(static_cast<std::uint32_t>(token.raw >> done) & ((1u << bits) - 1), bits);
  }
}

// Of a group of `here` elements, so many are listed.
unsigned listed_of(const Listed& listed, std::size_t first, unsigned here) {
  const std::size_t left = listed.count > first ? listed.count - first : 0;
  return left < here ? static_cast<unsigned>(left) : here;
}

template <class U>
void put_all(PairWriter& out, const DeltaRule& rule, unsigned cold, const Listed& listed, Signs& signs) {
  ChangeModel model;
  const unsigned last = last_bucket(rule.scheme, sizeof(U) * 8);
  for (std::size_t first = 0; first < listed.total(); first += kLearnedGroup) {
    const auto here = static_cast<unsigned>(std::min<std::size_t>(kLearnedGroup, listed.total() - first));
    U residuals[kLearnedGroup];
    unsigned contexts[kLearnedGroup];
    std::uint32_t changed = 0;
    for (unsigned n = 0; n < here; ++n) {
      const U from = scalar::load<U>(listed.base.data(), first + n);
      residuals[n] = residual_of(scalar::load<U>(listed.target.data(), first + n), from, rule.element.is_float);
      contexts[n] = scalar::context_of(from, rule);
      changed |= static_cast<std::uint32_t>(residuals[n] != 0 ? 1 : 0) << n;
    }
    const unsigned few = listed_of(listed, first, here);
    for (unsigned n = 0; n < few; ++n) write_straight(out, model.changed[contexts[n]], changed >> n & 1);
    std::uint32_t larger = 0;
    for (; changed != 0; changed &= changed - 1) {
      const auto n = static_cast<unsigned>(__builtin_ctz(changed));
      const U off_one = static_cast<U>(residuals[n] + 1);  // 0 or 2, where the size is 1
      const auto more = static_cast<std::uint32_t>((off_one & static_cast<U>(~U{2})) != 0 ? 1 : 0);
      write_straight(out, model.larger[std::min(contexts[n], cold)], more);
      signs.put(residuals[n] >> (sizeof(U) * 8 - 1) != 0);
      larger |= more << n;
    }
    for (; larger != 0; larger &= larger - 1) {
      const auto n = static_cast<unsigned>(__builtin_ctz(larger));
      put_size(out, model.further[std::min(contexts[n], cold)], token_of(residuals[n], rule.scheme), last);
    }
  }
}

// The elements of a group that changed, a bit each.
std::uint32_t take_group(PairReader& in, ChangeModel& model, const std::uint8_t* contexts, unsigned listed,
                         unsigned here) {
  std::uint32_t changed = 0;
  for (unsigned n = 0; n < listed; ++n) {
    changed |= read_straight(in, model.changed[contexts[n]]) << n;
  }
  // Events have changed.
  for (unsigned n = listed; n < here; ++n) changed |= 1u << n;
  return changed;
}

// How far an element moved, by more than 1.
std::uint64_t take_size(PairReader& in, Chance& further, unsigned last, const scalar::TokenMeaning& meaning) {
  unsigned bucket = 2;
  while (bucket < last && read_bit(in, further)) ++bucket;
  const unsigned token = 2 * bucket - 1;
  std::uint64_t raw = 0;
  for (unsigned done = 0; done < meaning.bits[token]; done += 16) {
    raw |= static_cast<std::uint64_t>(in.bits(std::min(16u, meaning.bits[token] - done))) << done;
  }
  return meaning.origin[token] + raw;
}

// All signs in a row, those of the states behind those of the body.
bool join_signs(const PairReader& in, ByteReader& reader, std::size_t count, std::uint8_t* signs) {
  const auto behind = static_cast<std::size_t>(reader.end - reader.at);
  if (!in.used_up() || behind > count / 8 || count - 8 * behind > kSignsInStates) return false;
  const std::uint64_t held = in.held();
  if (held >> (count - 8 * behind) != 0) return false;
  std::memcpy(signs, reader.take(behind), behind);
  std::memcpy(signs + behind, &held, sizeof held);
  return true;
}

template <class U>
bool take_all(PairReader& from_words, ByteReader& reader, const DeltaRule& rule, unsigned cold, Listed& listed) {
  ChangeModel model;
  const unsigned last = last_bucket(rule.scheme, sizeof(U) * 8);
  const scalar::TokenMeaning meaning(rule.scheme, 2 * last);
  std::memcpy(listed.target.data(), listed.base.data(), listed.total() * sizeof(U));
  std::uint16_t places[kMostLearned];
  std::size_t count = 0;
  // A copy, for the states to stay in registers.
  PairReader in = from_words;
  for (std::size_t first = 0; first < listed.total(); first += kLearnedGroup) {
    const auto here = static_cast<unsigned>(std::min<std::size_t>(kLearnedGroup, listed.total() - first));
    const unsigned few = listed_of(listed, first, here);
    std::uint8_t contexts[kLearnedGroup];
    for (unsigned n = 0; n < here; ++n) {
      contexts[n] = static_cast<std::uint8_t>(scalar::context_of(scalar::load<U>(listed.base.data(), first + n), rule));
    }
    std::uint32_t larger = 0;
    for (std::uint32_t left = take_group(in, model, contexts, few, here); left != 0; left &= left - 1) {
      const auto n = static_cast<unsigned>(__builtin_ctz(left));
      places[count++] = static_cast<std::uint16_t>(first + n);
      // The size, until its sign is known.
      scalar::store<U>(listed.target.data(), first + n, 1);
      larger |= read_straight(in, model.larger[std::min<unsigned>(contexts[n], cold)]) << n;
    }
    for (; larger != 0; larger &= larger - 1) {
      const auto n = static_cast<unsigned>(__builtin_ctz(larger));
      Chance& further = model.further[std::min<unsigned>(contexts[n], cold)];
      scalar::store<U>(listed.target.data(), first + n, static_cast<U>(take_size(in, further, last, meaning)));
    }
  }
  from_words = in;
  std::uint8_t signs[kMostLearned / 8 + sizeof(std::uint64_t)];
  if (!join_signs(in, reader, count, signs)) return false;
  for (std::size_t i = 0; i < count; ++i) {
    const auto negative = static_cast<U>(signs[i / 8] >> i % 8 & 1);
    const U size = scalar::load<U>(listed.target.data(), places[i]);
    const auto residual = static_cast<U>((size ^ static_cast<U>(U{0} - negative)) + negative);
    const U from = scalar::load<U>(listed.base.data(), places[i]);
    scalar::store<U>(listed.target.data(), places[i], apply_residual(from, residual, rule.element.is_float));
  }
  return true;
}

}  // namespace

std::uint64_t Signs::held() const {
  std::uint64_t bits = 0;
  for (std::size_t i = 8 * behind(); i < count_; ++i) {
    bits |= static_cast<std::uint64_t>(bytes_[i / 8] >> i % 8 & 1) << (i - 8 * behind());
  }
  return bits;
}

void put_changes(PairWriter& out, unsigned element_bytes, const DeltaRule& rule, unsigned cold, const Listed& listed,
                 Signs& signs) {
  signs.clear();
  by_size(element_bytes, [&](auto zero) { put_all<decltype(zero)>(out, rule, cold, listed, signs); });
}

bool take_changes(PairReader& in, ByteReader& reader, unsigned element_bytes, const DeltaRule& rule, unsigned cold,
                  Listed& listed) {
  bool whole = false;
  by_size(element_bytes, [&](auto zero) { whole = take_all<decltype(zero)>(in, reader, rule, cold, listed); });
  return whole;
}

}  // namespace textnlp_fast
