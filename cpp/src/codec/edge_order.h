// Puts the edges of intervals in order. Edges at one place may stand in any order, and which one decides about bytes:
// so this is, move by move, the introsort of libstdc++ (bits/stl_algo.h: median of three, heap where that goes too
// deep, insertion at the end), which every encoder has used so far. Shared with the CUDA twin.
#pragma once
#include <cstddef>
#include <cstdint>

#include "codec/host_device.h"

namespace textnlp_fast {

struct Edge {
  double at;
  int change;
};

namespace edges {

constexpr std::ptrdiff_t kFew = 16;

TEXTNLP_FAST_HD inline bool before(const Edge& a, const Edge& b) { return a.at < b.at; }

TEXTNLP_FAST_HD inline void swap(Edge& a, Edge& b) noexcept {
  const Edge kept = a;
  a = b;
  b = kept;
}

TEXTNLP_FAST_HD inline void sift(Edge* first, std::ptrdiff_t hole, std::ptrdiff_t size, Edge value) {
  const std::ptrdiff_t top = hole;
  std::ptrdiff_t child = hole;
  while (child < (size - 1) / 2) {
    child = 2 * (child + 1);
    if (before(first[child], first[child - 1])) --child;
    first[hole] = first[child];
    hole = child;
  }
  if (size % 2 == 0 && child == (size - 2) / 2) {
    child = 2 * (child + 1);
    first[hole] = first[child - 1];
    hole = child - 1;
  }
  for (std::ptrdiff_t parent = (hole - 1) / 2; hole > top && before(first[parent], value); parent = (hole - 1) / 2) {
    first[hole] = first[parent];
    hole = parent;
  }
  first[hole] = value;
}

TEXTNLP_FAST_HD inline void heap_sort(Edge* first, std::ptrdiff_t size) {
  for (std::ptrdiff_t parent = (size - 2) / 2; parent >= 0; --parent) sift(first, parent, size, first[parent]);
  while (size > 1) {
    --size;
    const Edge value = first[size];
    first[size] = first[0];
    sift(first, 0, size, value);
  }
}

TEXTNLP_FAST_HD inline void median_to_first(Edge& result, Edge& a, Edge& b, Edge& c) {
  if (before(a, b)) {
    swap(result, before(b, c) ? b : before(a, c) ? c : a);
  } else {
    swap(result, before(a, c) ? a : before(b, c) ? c : b);
  }
}

TEXTNLP_FAST_HD inline std::ptrdiff_t partition(Edge* edge, std::ptrdiff_t first, std::ptrdiff_t last) {
  const std::ptrdiff_t pivot = first;
  median_to_first(edge[first], edge[first + 1], edge[first + (last - first) / 2], edge[last - 1]);
  ++first;
  for (;;) {
    while (before(edge[first], edge[pivot])) ++first;
    --last;
    while (before(edge[pivot], edge[last])) --last;
    if (first >= last) return first;
    swap(edge[first], edge[last]);
    ++first;
  }
}

TEXTNLP_FAST_HD inline void insert(Edge* first, Edge* at, bool guarded) {
  const Edge value = *at;
  if (guarded && before(value, *first)) {
    for (; at != first; --at) *at = at[-1];
  } else {
    for (; before(value, at[-1]); --at) *at = at[-1];
  }
  *at = value;
}

TEXTNLP_FAST_HD_CALL void sort(Edge* edge, std::ptrdiff_t size) {
  struct Part {
    std::ptrdiff_t first;
    std::ptrdiff_t last;
    int depth;
  };
  if (size < 2) return;
  constexpr int kDeepest = 64;
  int depth = 0;
  for (std::ptrdiff_t left = size; left > 1; left /= 2) depth += 2;
  // Parts wait in a list instead of on a stack of calls: their order changes nothing.
  Part parts[kDeepest];
  int waiting = 0;
  parts[waiting++] = {0, size, depth};
  while (waiting > 0) {
    Part part = parts[--waiting];
    while (part.last - part.first > kFew) {
      if (part.depth == 0) {
        heap_sort(edge + part.first, part.last - part.first);
        break;
      }
      --part.depth;
      const std::ptrdiff_t cut = partition(edge, part.first, part.last);
      parts[waiting++] = {cut, part.last, part.depth};
      part.last = cut;
    }
  }
  const std::ptrdiff_t guarded = size > kFew ? kFew : size;
  for (std::ptrdiff_t i = 1; i < size; ++i) insert(edge, edge + i, i < guarded);
}

}  // namespace edges
}  // namespace textnlp_fast
