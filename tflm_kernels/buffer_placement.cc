// SPDX-License-Identifier: Apache-2.0
#include "buffer_placement.h"

namespace mcuformer {
namespace {

constexpr int kOrders = 4;          // ways to sort, see Before
constexpr int kRounds = 8;          // placements tried per order
constexpr int kFromEnds = kOrders;  // the order of PlaceFromEnds

int32_t Larger(int32_t a, int32_t b) { return a > b ? a : b; }

int32_t End(const PlannedBuffer& buffer) { return buffer.offset + buffer.size; }

bool MeetInTime(const PlannedBuffer& a, const PlannedBuffer& b) { return a.first <= b.last && b.first <= a.last; }

bool MeetInSpace(int32_t offset, int32_t size, const PlannedBuffer& other) {
  return offset < End(other) && other.offset < offset + size;
}

class Placer {
 public:
  Placer(PlannedBuffer* buffers, int tensors, int count) : buffers_(buffers), tensors_(tensors), count_(count) {}

  Placement CheckFixed(int* culprit) const {
    int64_t total = 0;
    int32_t highest = 0;
    for (int i = 0; i < count_; ++i) {
      *culprit = i;
      const PlannedBuffer& a = buffers_[i];
      total += a.size;
      if (!a.fixed) continue;
      if (a.offset < 0 || a.offset % kBufferAlignment != 0) return Placement::kBadOffset;
      if (a.offset > INT32_MAX - a.size) return Placement::kTooLarge;
      highest = Larger(highest, End(a));
      for (int j = 0; j < i; ++j) {
        const PlannedBuffer& b = buffers_[j];
        if (!b.fixed || !MeetInTime(a, b) || !MeetInSpace(a.offset, a.size, b)) continue;
        const bool linked = a.overwrites == j || b.overwrites == i;
        if (!linked || a.offset != b.offset) return Placement::kOverlap;
      }
    }
    return total + highest > INT32_MAX ? Placement::kTooLarge : Placement::kDone;
  }

  // From links to groups: overwrites becomes the group's first buffer, its root.
  Placement MakeGroups(int* culprit) {
    for (int i = 0; i < count_; ++i) {
      *culprit = i;
      if (buffers_[i].overwrites != kNoBuffer && !LinkIsGood(i)) return Placement::kBadLink;
    }
    for (int i = 0; i < count_; ++i) {
      PlannedBuffer& a = buffers_[i];
      if (a.overwrites == kNoBuffer || a.fixed || buffers_[a.overwrites].fixed) a.overwrites = static_cast<int16_t>(i);
      a.group_size = a.group_last = 0;
    }
    for (int i = 0; i < count_; ++i) {
      PlannedBuffer& a = buffers_[i];
      // This ends: each link leads to an earlier step.
      while (buffers_[a.overwrites].overwrites != a.overwrites) a.overwrites = buffers_[a.overwrites].overwrites;
      PlannedBuffer& root = buffers_[a.overwrites];
      root.group_size = Larger(root.group_size, a.size);
      root.group_last = Larger(root.group_last, a.last);
    }
    return Placement::kDone;
  }

  // The best of a few greedy orders, in which what ends highest is placed first the next time, and of placing from both
  // ends.
  int32_t Run() {
    const int32_t bound = LowerBound();
    int32_t best = -1;
    for (int by = 0; by < kOrders; ++by) {
      const int groups = Sort(by);
      for (int round = 0; round < kRounds; ++round) {
        KeepBetter(PlaceAll(groups), &best);
        if (best == bound || !HighestToFront(groups)) break;
      }
      if (best == bound) break;
    }
    if (best > bound) KeepBetter(PlaceFromEnds(bound), &best);
    for (int i = 0; i < count_; ++i) buffers_[i].offset = buffers_[i].best_offset;
    return best;
  }

 private:
  void KeepBetter(int32_t head, int32_t* best) {
    if (*best >= 0 && head >= *best) return;
    *best = head;
    for (int i = 0; i < count_; ++i) buffers_[i].best_offset = buffers_[i].offset;
  }

  bool LinkIsGood(int i) const {
    const int over = buffers_[i].overwrites;
    if (i >= tensors_ || over < 0 || over >= tensors_ || buffers_[over].last != buffers_[i].first) return false;
    // What overwrites a buffer must outlast the step that reads it, or three would overlap.
    if (buffers_[over].overwrites != kNoBuffer && buffers_[over].first >= buffers_[over].last) return false;
    for (int j = 0; j < i; ++j) {
      if (buffers_[j].overwrites == over) return false;
    }
    return true;
  }

  bool IsRoot(int i) const { return buffers_[i].overwrites == i && !buffers_[i].fixed; }

  // The most bytes in use in any step; no plan is smaller.
  int32_t LowerBound() const {
    int32_t bound = 0;
    for (int at = 0; at < count_; ++at) {
      int32_t sum = 0;
      for (int i = 0; i < count_; ++i) {
        // A group counts once, at the larger size of the two that meet when one overwrites the other.
        if (IsRoot(i)) sum += LargestAlive(i, buffers_[at].first);
      }
      bound = Larger(bound, sum);
    }
    return bound;
  }

  // The largest size of the group's buffers in use in this step; 0 without any.
  int32_t LargestAlive(int root, int32_t step) const {
    int32_t largest = 0;
    if (buffers_[root].first > step || buffers_[root].group_last < step) return largest;
    for (int i = 0; i < count_; ++i) {
      const PlannedBuffer& a = buffers_[i];
      if (a.overwrites == root && a.first <= step && a.last >= step) largest = Larger(largest, a.size);
    }
    return largest;
  }

  // True if group a is placed before group b.
  bool Before(int by, int16_t a_root, int16_t b_root) const {
    const PlannedBuffer& a = buffers_[a_root];
    const PlannedBuffer& b = buffers_[b_root];
    const int64_t a_size = a.group_size, b_size = b.group_size;
    const int64_t a_span = a.group_last - a.first, b_span = b.group_last - b.first;
    switch (by) {
      case 0:  // largest, then longest
        return a_size != b_size ? a_size > b_size : a_span > b_span;
      case 1:  // longest, then largest
        return a_span != b_span ? a_span > b_span : a_size > b_size;
      case 2:  // size by time
        return a_size * (a_span + 1) > b_size * (b_span + 1);
      case 3:  // first in time, then largest
        return a.first != b.first ? a.first < b.first : a_size > b_size;
      default:  // kFromEnds
        return FromEndsPlace(a_root) != FromEndsPlace(b_root) ? FromEndsPlace(a_root) < FromEndsPlace(b_root)
               : IsBefore(a_root)                             ? a.first > b.first
                                                              : a.first < b.first;
    }
  }

  // Fills `order` with the groups of tensors, sorted; returns their number. Equals stay in the order of their roots.
  int Sort(int by) {
    int groups = 0;
    for (int i = 0; i < tensors_; ++i) {
      if (!IsRoot(i)) continue;
      int at = groups++;
      for (; at > 0 && Before(by, static_cast<int16_t>(i), buffers_[at - 1].order); --at) {
        buffers_[at].order = buffers_[at - 1].order;
      }
      buffers_[at].order = static_cast<int16_t>(i);
    }
    return groups;
  }

  // False if that group is already in it.
  bool HighestToFront(int groups) {
    int highest = -1;
    for (int i = 0; i < tensors_; ++i) {
      if (!buffers_[i].fixed && (highest < 0 || End(buffers_[i]) > End(buffers_[highest]))) highest = i;
    }
    if (highest < 0 || buffers_[0].order == buffers_[highest].overwrites) return false;
    const int16_t root = buffers_[highest].overwrites;
    int at = 0;
    while (at < groups - 1 && buffers_[at].order != root) ++at;
    for (; at > 0; --at) buffers_[at].order = buffers_[at - 1].order;
    buffers_[0].order = root;
    return true;
  }

  // Each group in turn at the lowest free offset, then the scratch. Returns where the highest ends.
  int32_t PlaceAll(int groups) {
    StartPlacing();
    for (int i = 0; i < groups; ++i) PlaceGroup(buffers_[i].order, LowestOffset(buffers_[i].order));
    return PlaceScratch();
  }

  // The longest group at the bottom. Earlier groups, last to first, at the bottom if free, else just below the ceiling;
  // later groups as low as possible. In the chain of layers before the residual stream, input and output then sit at
  // opposite ends, with all the space between free for scratch.
  int32_t PlaceFromEnds(int32_t ceiling) {
    int groups = 0;
    longest_ = -1;
    for (int i = 0; i < tensors_; ++i) {
      if (!IsRoot(i)) continue;
      ++groups;
      if (longest_ < 0 || Span(i) > Span(longest_)) longest_ = i;
    }
    StartPlacing();
    if (groups > 0) Sort(kFromEnds);
    for (int i = 0; i < groups; ++i) {
      const int root = buffers_[i].order;
      const int32_t low = LowestOffset(root);
      const int32_t high = low > 0 && IsBefore(root) ? HighestOffset(root, ceiling) : -1;
      PlaceGroup(root, high >= 0 ? high : low);
    }
    return PlaceScratch();
  }

  int32_t Span(int root) const { return buffers_[root].group_last - buffers_[root].first; }

  bool IsBefore(int root) const { return buffers_[root].first < buffers_[longest_].first; }

  int FromEndsPlace(int root) const { return root == longest_ ? 0 : IsBefore(root) ? 1 : 2; }

  void StartPlacing() {
    for (int i = 0; i < count_; ++i) buffers_[i].placed = buffers_[i].fixed;
  }

  int32_t PlaceScratch() {
    for (int left = tensors_; left < count_; ++left) {
      int next = -1;
      for (int i = tensors_; i < count_; ++i) {
        if (!buffers_[i].placed && (next < 0 || buffers_[i].size >= buffers_[next].size)) next = i;
      }
      if (next >= 0) PlaceGroup(next, LowestOffset(next));
    }
    int32_t head = 0;
    for (int i = 0; i < count_; ++i) head = Larger(head, End(buffers_[i]));
    return head;
  }

  int32_t LowestOffset(int root) const {
    int32_t offset = 0;
    for (int32_t tried = -1; tried != offset;) {
      tried = offset;
      for (int i = 0; i < count_; ++i) {
        if (buffers_[i].overwrites == root && !buffers_[i].fixed) offset = Above(buffers_[i], offset);
      }
    }
    return offset;
  }

  // Negative if the group does not fit below the ceiling.
  int32_t HighestOffset(int root, int32_t ceiling) const {
    int32_t offset = ceiling - buffers_[root].group_size;
    for (int32_t tried = ceiling; tried != offset && offset >= 0;) {
      tried = offset;
      for (int i = 0; i < count_; ++i) {
        if (buffers_[i].overwrites == root && !buffers_[i].fixed) offset = Below(buffers_[i], offset);
      }
    }
    return offset;
  }

  void PlaceGroup(int root, int32_t offset) {
    for (int i = 0; i < count_; ++i) {
      if (buffers_[i].overwrites != root || buffers_[i].fixed) continue;
      buffers_[i].offset = offset;
      buffers_[i].placed = true;
    }
  }

  // `offset`, or the least offset for this buffer: above each placed one that it would meet.
  int32_t Above(const PlannedBuffer& a, int32_t offset) const {
    for (int i = 0; i < count_; ++i) {
      const PlannedBuffer& b = buffers_[i];
      if (b.placed && MeetInTime(a, b) && MeetInSpace(offset, a.size, b)) offset = End(b);
    }
    return offset;
  }

  // `offset`, or the largest offset for this buffer: below each placed one that it would meet.
  int32_t Below(const PlannedBuffer& a, int32_t offset) const {
    for (int i = 0; i < count_; ++i) {
      const PlannedBuffer& b = buffers_[i];
      if (b.placed && MeetInTime(a, b) && MeetInSpace(offset, a.size, b)) offset = b.offset - a.size;
    }
    return offset;
  }

  PlannedBuffer* buffers_;
  int tensors_;
  int count_;
  int longest_ = -1;  // the longest group's root, for PlaceFromEnds
};

}  // namespace

Placement PlaceBuffers(PlannedBuffer* buffers, int tensors, int count, int32_t* head_bytes, int* culprit) {
  Placer placer(buffers, tensors, count);
  Placement result = placer.CheckFixed(culprit);
  if (result == Placement::kDone) result = placer.MakeGroups(culprit);
  if (result == Placement::kDone) *head_bytes = placer.Run();
  return result;
}

}  // namespace mcuformer
