#include "codec/places.h"

#include <cmath>

#include "codec/tokens.h"

namespace textnlp_fast {
namespace {

// About the inverse of reach(); where it errs, a step or two mend it.
std::uint32_t guess_place(std::uint32_t slot, std::uint32_t rest, unsigned left) {
  float none = static_cast<float>(kPlaceScale - slot) * (1.0F / kPlaceScale);
  if (left == 2) none = std::sqrt(none);
  if (left > 2) none = std::pow(none, 1.0F / static_cast<float>(left < kMostPower ? left : kMostPower));
  const float place = static_cast<float>(rest) * (1.0F - none);
  const auto whole = static_cast<std::uint32_t>(place > 0 ? place : 0);
  return whole < rest ? whole : rest - 1;
}

// An element by columns, then rows.
struct Cursor {
  const SparseBlock& block;
  unsigned column;
  unsigned row;

  [[nodiscard]] std::uint32_t begin() const { return block.columns[column] + block.before[row][column]; }
  [[nodiscard]] std::uint32_t end() const {
    return block.columns[column] + (row + 1 < kBlockRows ? block.before[row + 1][column] : block.sums[column]);
  }

  // The last element that begins at `place` or before. By eights and ones, by fours and ones: no branch to guess.
  void find(std::uint32_t place) {
    column = 0;
    for (unsigned c = 8; c < kLanes; c += 8) column += block.columns[c] <= place ? 8 : 0;
    const std::uint32_t* const columns = block.columns + column;
    for (unsigned c = 1; c < 8; ++c) column += columns[c] <= place ? 1 : 0;
    const std::uint32_t rest = place - block.columns[column];
    row = 0;
    for (unsigned r = 4; r < kBlockRows; r += 4) row += block.before[r][column] <= rest ? 4 : 0;
    const unsigned first = row;
    for (unsigned r = 1; r < 4; ++r) row += block.before[first + r][column] <= rest ? 1 : 0;
  }

  void next() {
    if (++row == kBlockRows) {
      row = 0;
      ++column;
    }
  }

  void previous() {
    if (row-- == 0) {
      row = kBlockRows - 1;
      --column;
    }
  }
};

}  // namespace

void write_alive(PairWriter& out, PlaceModel& model, bool alive) {
  write_bit(out, model.alive[model.was_alive ? 1 : 0], alive);
  model.was_alive = alive;
}

void write_events(PairWriter& out, PlaceModel& model, const SparseBlock& block, const std::uint16_t* events,
                  unsigned count) {
  const std::uint32_t total = block.columns[kLanes];
  Chance(&more)[PlaceModel::kCounts] = model.more[floor_log2(total)];
  for (unsigned n = 0; n <= count; ++n) {
    write_bit(out, more[n < PlaceModel::kCounts ? n : PlaceModel::kCounts - 1], n < count);
  }
  if (count == 0) return;
  std::uint32_t from = 0;
  for (unsigned n = 0; n < count; ++n) {
    const Cursor at{block, events[n] % kLanes, events[n] / kLanes};
    const Spread spread(total - from, count - n);
    const std::uint32_t start = spread.reach(at.begin() - from);
    out.put(start, spread.reach(at.end() - from) - start, kPlaceLog);
    from = at.end();
  }
}

unsigned read_events(PairReader& in, PlaceModel& model, const SparseBlock& block, std::uint16_t* events) {
  const std::uint32_t total = block.columns[kLanes];
  Chance(&more)[PlaceModel::kCounts] = model.more[floor_log2(total)];
  unsigned count = 0;
  while (read_bit(in, more[count < PlaceModel::kCounts ? count : PlaceModel::kCounts - 1])) {
    if (++count > kBlockElements) return count;
  }
  if (count == 0) return 0;
  std::uint32_t from = 0;
  for (unsigned n = 0; n < count; ++n) {
    const std::uint32_t rest = total - from;
    if (rest == 0) return kBlockElements + 1;
    const Spread spread(rest, count - n);
    const std::uint32_t slot = in.slot(kPlaceLog);
    Cursor at{block, 0, 0};
    at.find(from + guess_place(slot, rest, count - n));
    // Elements before `from` and those without hazard have no share; the loops end, for the shares fill the scale.
    while (at.end() <= from) at.next();
    std::uint32_t start = spread.reach(at.begin() - from);
    while (start > slot) {
      at.previous();
      start = spread.reach(at.begin() - from);
    }
    std::uint32_t end = spread.reach(at.end() - from);
    while (end <= slot) {
      at.next();
      start = end;
      end = spread.reach(at.end() - from);
    }
    in.advance(start, end - start, kPlaceLog);
    events[n] = static_cast<std::uint16_t>(at.row * kLanes + at.column);
    from = at.end();
  }
  return count;
}

}  // namespace textnlp_fast
