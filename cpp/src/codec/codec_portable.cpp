#include "codec/codec_kernels.h"
#include "codec/codec_scalar.h"
#include "codec/sparse_scalar.h"
#include "codec/steps_scalar.h"

namespace textnlp_fast {
namespace {

using scalar::load;

// Calls `action` with a zero of the unsigned type of that size.
template <class Action>
auto by_size(unsigned element_size, const Action& action) {
  switch (element_size) {
    case 1: return action(std::uint8_t{0});
    case 2: return action(std::uint16_t{0});
    case 4: return action(std::uint32_t{0});
    default: return action(std::uint64_t{0});
  }
}

}  // namespace

namespace portable {

unsigned max_field(unsigned element_size, const std::uint8_t* base, std::size_t count, ElementRule rule) {
  return by_size(element_size, [&](auto zero) { return scalar::max_field<decltype(zero)>(base, 0, count, rule); });
}

void delta_histogram(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                     const DeltaRule* rule, TokenCounts* counts) {
  by_size(element_size,
          [&](auto zero) { scalar::delta_histogram<decltype(zero)>(target, base, 0, count, *rule, counts); });
}

void delta_count(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                 DeltaRule* rule, TokenCounts* counts) {
  scalar::set_contexts(*rule, max_field(element_size, base, count, rule->element));
  delta_histogram(element_size, target, base, count, rule, counts);
}

void delta_encode(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, const DeltaRule* rule,
                  const DeltaEncodeTables* tables, SegmentOutput* segments, unsigned segment_count) {
  by_size(element_size, [&](auto zero) {
    using U = decltype(zero);
    for (unsigned s = 0; s < segment_count; ++s) {
      SegmentOutput& segment = segments[s];
      const std::size_t offset = segment.begin * sizeof(U);
      scalar::reset(segment.states);
      scalar::delta_put<U>(target + offset, base + offset, 0, segment.count, *rule, *tables, segment.states,
                           segment.words);
    }
  });
}

bool delta_decode(unsigned element_size, SegmentInput* segments, unsigned segment_count, const DeltaRule* rule,
                  const DeltaDecodeTables* tables, const std::uint8_t* base, std::uint8_t* out) {
  return by_size(element_size, [&](auto zero) {
    return scalar::delta_decode<decltype(zero)>(segments, segment_count, *rule, *tables, base, out);
  });
}

void sparse_survey(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                   ElementRule rule, std::uint64_t most, std::uint32_t* masks, SparseSurvey* survey) {
  std::memset(survey, 0, sizeof *survey);
  by_size(element_size, [&](auto zero) {
    scalar::sparse_survey<decltype(zero)>(target, base, 0, count, rule, most, masks, *survey);
  });
}

void sparse_scan(unsigned element_size, const std::uint8_t* base, std::size_t count, const SparseRule* rule,
                 SparseBlock* block) {
  by_size(element_size, [&](auto zero) { scalar::sparse_scan<decltype(zero)>(base, count, *rule, *block); });
}

unsigned sparse_list(const std::uint32_t* masks, unsigned rows, std::uint16_t* places) {
  unsigned count = 0;
  for (unsigned row = 0; row < rows; ++row) {
    for (std::uint32_t left = masks[row]; left != 0; left &= left - 1) {
      places[count++] = static_cast<std::uint16_t>(row * kLanes + static_cast<unsigned>(__builtin_ctz(left)));
    }
  }
  return count;
}

std::size_t sparse_pick(unsigned element_size, const std::uint8_t* from, const std::uint32_t* masks, unsigned rows,
                        std::uint8_t* packed) {
  return by_size(element_size,
                 [&](auto zero) { return scalar::sparse_pick<decltype(zero)>(from, masks, rows, packed); });
}

std::size_t sparse_place(unsigned element_size, const std::uint8_t* packed, const std::uint32_t* masks, unsigned rows,
                         std::uint8_t* to) {
  return by_size(element_size,
                 [&](auto zero) { return scalar::sparse_place<decltype(zero)>(packed, masks, rows, to); });
}

void split_planes(unsigned element_size, bool rotate, const std::uint8_t* data, std::size_t count,
                  std::uint8_t* const* planes) {
  by_size(element_size, [&](auto zero) {
    using U = decltype(zero);
    for (std::size_t i = 0; i < count; ++i) {
      U value = load<U>(data, i);
      if (rotate) value = static_cast<U>(value << 1 | value >> (sizeof(U) * 8 - 1));
      for (unsigned p = 0; p < sizeof(U); ++p) {
        planes[p][i] = static_cast<std::uint8_t>(value >> (8 * (sizeof(U) - 1 - p)));
      }
    }
  });
}

void merge_planes(unsigned element_size, bool rotate, const std::uint8_t* const* planes, std::size_t count,
                  std::uint8_t* data) {
  by_size(element_size, [&](auto zero) {
    using U = decltype(zero);
    for (std::size_t i = 0; i < count; ++i) {
      std::uint64_t joined = 0;
      for (unsigned p = 0; p < sizeof(U); ++p) joined = joined << 8 | planes[p][i];
      auto value = static_cast<U>(joined);
      if (rotate) value = static_cast<U>(value >> 1 | value << (sizeof(U) * 8 - 1));
      scalar::store<U>(data, i, value);
    }
  });
}

void bf16_steps(const std::uint8_t* base, std::size_t count, float size, std::uint8_t* up, std::uint8_t* down) {
  step_all<Bfloat16>(base, 0, count, size, up, down);
}

std::size_t steps_count(const std::uint8_t* base, const std::uint8_t* up, const std::uint8_t* down, std::size_t count) {
  return count_moves<std::uint16_t>(base, up, down, 0, count);
}

std::size_t steps_tell(const std::uint8_t* target, const std::uint8_t* base, const std::uint8_t* up,
                       const std::uint8_t* down, std::size_t count, std::uint32_t* odd, std::uint8_t* directions) {
  BitTail tail(directions);
  tell_moves<std::uint16_t>(target, base, up, down, 0, count, odd, tail);
  return tail.total;
}

void steps_take(const std::uint8_t* base, const std::uint8_t* up, const std::uint8_t* down,
                const std::uint8_t* directions, std::size_t count, std::uint8_t* target) {
  take_moves<std::uint16_t>(base, up, down, directions, 0, 0, count, target);
}

void byte_histogram(const std::uint8_t* data, std::size_t count, std::uint32_t* counts) {
  // Four tables: neighbours are often equal, and an increment waits for the one before it to the same address.
  std::uint32_t part[4][256] = {};
  std::size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    for (unsigned k = 0; k < 4; ++k) ++part[k][data[i + k]];
  }
  for (; i < count; ++i) ++part[0][data[i]];
  for (unsigned byte = 0; byte < 256; ++byte) {
    counts[byte] += part[0][byte] + part[1][byte] + part[2][byte] + part[3][byte];
  }
}

void byte_presence(const std::uint8_t* data, std::size_t count, std::uint8_t* seen) {
  for (std::size_t i = 0; i < count; ++i) seen[data[i]] = 1;
}

void bytes_encode(const std::uint8_t* data, const EncodeSymbol* symbols, unsigned table_log, SegmentOutput* segments,
                  unsigned segment_count) {
  for (unsigned s = 0; s < segment_count; ++s) {
    SegmentOutput& segment = segments[s];
    scalar::reset(segment.states);
    scalar::bytes_put(data + segment.begin, 0, segment.count, symbols, table_log, segment.states, segment.words);
  }
}

namespace {

template <class Emit>
bool decode_bytes(SegmentInput* segments, unsigned segment_count, const ByteDecodeTable& given, Emit emit) {
  // Copies, for stores of bytes may alias anything that has an address elsewhere.
  const ByteDecodeTable table = given;
  for (unsigned s = 0; s < segment_count; ++s) {
    const SegmentInput segment = segments[s];
    std::uint32_t states[kLanes];
    for (unsigned lane = 0; lane < kLanes; ++lane) states[lane] = segment.states[lane];
    std::size_t i = 0;
    scalar::OpenWords open{segment.words};
    while (segment.count - i >= kLanes && segment.end - open.cursor >= std::ptrdiff_t{2 * kLanes}) {
      for (unsigned lane = 0; lane < kLanes; ++lane, ++i) {
        emit(segment.begin + i, scalar::byte_take(states[lane], table, open));
      }
    }
    WordReader words{open.cursor, segment.end, false};
    for (; i < segment.count; ++i) emit(segment.begin + i, scalar::byte_take(states[i % kLanes], table, words));
    if (!scalar::finished(states, words)) return false;
  }
  return true;
}

}  // namespace

bool bytes_decode(SegmentInput* segments, unsigned segment_count, const ByteDecodeTable* table, std::uint8_t* out) {
  return decode_bytes(segments, segment_count, *table,
                      [=](std::size_t i, unsigned symbol) { out[i] = static_cast<std::uint8_t>(symbol); });
}

bool bytes_decode_merge2(SegmentInput* segments, unsigned segment_count, const ByteDecodeTable* table, bool rotate,
                         const std::uint8_t* lower, std::uint8_t* out) {
  return decode_bytes(segments, segment_count, *table, [=](std::size_t i, unsigned symbol) {
    scalar::store<std::uint16_t>(out, i, scalar::join(symbol, lower[i], rotate));
  });
}

}  // namespace portable

const CodecKernels codec_kernels_portable = {
    "portable",
    portable::delta_count,
    portable::delta_histogram,
    portable::delta_encode,
    portable::delta_decode,
    portable::sparse_survey,
    portable::sparse_scan,
    portable::sparse_list,
    portable::sparse_pick,
    portable::sparse_place,
    portable::bf16_steps,
    portable::steps_count,
    portable::steps_tell,
    portable::steps_take,
    portable::split_planes,
    portable::merge_planes,
    portable::byte_histogram,
    portable::byte_presence,
    portable::bytes_encode,
    portable::bytes_decode,
    portable::bytes_decode_merge2,
};

}  // namespace textnlp_fast
