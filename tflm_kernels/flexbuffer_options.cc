// SPDX-License-Identifier: Apache-2.0
#include "flexbuffer_options.h"

namespace mcuformer {
namespace {

// The format's value types that are used here.
enum { kInt = 1, kUnsigned = 2, kIndirectInt = 6, kIndirectUnsigned = 7, kMap = 9 };

// The buffer, read by position with every read checked.
class Reader {
 public:
  Reader(const uint8_t* buffer, size_t length) : buffer_(buffer), length_(length) {}

  // True if `width` is one of the format's and [position, position + width) lies in the buffer.
  bool Holds(size_t position, uint64_t width) const {
    return (width == 1 || width == 2 || width == 4 || width == 8) && position <= length_ && width <= length_ - position;
  }

  // A little-endian unsigned number.
  bool Unsigned(size_t position, uint64_t width, uint64_t* value) const {
    if (!Holds(position, width)) return false;
    uint64_t result = 0;
    for (size_t i = 0; i < width; ++i) result |= static_cast<uint64_t>(buffer_[position + i]) << (8 * i);
    *value = result;
    return true;
  }

  // What an offset points to: offsets are stored as the distance backwards from their own position.
  bool Indirect(size_t position, uint64_t width, size_t* target) const {
    uint64_t offset;
    if (!Unsigned(position, width, &offset) || offset > position) return false;
    *target = position - static_cast<size_t>(offset);
    return true;
  }

  // True if the zero-terminated string at `position` is `key`.
  bool Matches(size_t position, const char* key) const {
    for (; position < length_; ++position, ++key) {
      if (buffer_[position] != static_cast<uint8_t>(*key)) return false;
      if (*key == '\0') return true;
    }
    return false;
  }

 private:
  const uint8_t* buffer_;
  size_t length_;
};

// A map is [keys offset][width of keys][count] values... types..., its position that of the first value. All
// except the types (a byte each) are `width` bytes wide.
struct Map {
  size_t values;
  uint64_t width;
  size_t count;
  size_t keys;
  uint64_t key_width;
};

bool FindRoot(const Reader& reader, size_t length, Map* map) {
  uint64_t root_width, type;
  if (length < 3 || !reader.Unsigned(length - 1, 1, &root_width) || !reader.Unsigned(length - 2, 1, &type) ||
      type >> 2 != kMap || root_width > length - 2) {
    return false;
  }
  map->width = static_cast<uint64_t>(1) << (type & 3);
  if (!reader.Indirect(length - 2 - static_cast<size_t>(root_width), root_width, &map->values)) return false;
  if (map->values < 3 * map->width) return false;
  const size_t width = static_cast<size_t>(map->width);
  uint64_t count, key_count;
  if (!reader.Unsigned(map->values - width, width, &count) ||
      !reader.Unsigned(map->values - 2 * width, width, &map->key_width) ||
      !reader.Indirect(map->values - 3 * width, width, &map->keys)) {
    return false;
  }
  if (map->key_width > map->keys ||
      !reader.Unsigned(map->keys - static_cast<size_t>(map->key_width), map->key_width, &key_count) ||
      key_count != count) {
    return false;
  }
  if (count > (length - map->values) / (width + 1)) return false;
  map->count = static_cast<size_t>(count);
  return true;
}

bool ReadValue(const Reader& reader, const Map& map, size_t index, int64_t* value) {
  uint64_t type, bits, width = map.width;
  size_t position = map.values + index * static_cast<size_t>(width);
  if (!reader.Unsigned(map.values + map.count * static_cast<size_t>(width) + index, 1, &type)) return false;
  const uint64_t kind = type >> 2;
  if (kind == kIndirectInt || kind == kIndirectUnsigned) {
    if (!reader.Indirect(position, width, &position)) return false;
    width = static_cast<uint64_t>(1) << (type & 3);
  } else if (kind != kInt && kind != kUnsigned) {
    return false;
  }
  if (!reader.Unsigned(position, width, &bits)) return false;
  const uint64_t sign = static_cast<uint64_t>(1) << (8 * width - 1);
  if (kind == kInt || kind == kIndirectInt) {
    *value = static_cast<int64_t>(bits & (sign - 1));
    if ((bits & sign) != 0) *value = *value - static_cast<int64_t>(sign - 1) - 1;  // two's complement
    return true;
  }
  if (bits > static_cast<uint64_t>(INT64_MAX)) return false;
  *value = static_cast<int64_t>(bits);
  return true;
}

}  // namespace

bool ReadInt(const uint8_t* buffer, size_t length, const char* key, int64_t* value) {
  if (buffer == nullptr) return false;
  const Reader reader(buffer, length);
  Map map;
  if (!FindRoot(reader, length, &map)) return false;
  for (size_t i = 0; i < map.count; ++i) {
    const size_t width = static_cast<size_t>(map.key_width);
    size_t name;
    if (i > (length - map.keys) / width || !reader.Indirect(map.keys + i * width, width, &name)) return false;
    if (reader.Matches(name, key)) return ReadValue(reader, map, i, value);
  }
  return false;
}

}  // namespace mcuformer
