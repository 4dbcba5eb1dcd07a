#pragma once
// Records in random order, with a window: memory for `window` records, whatever the size of the file.

#include <plumb/core/random.hpp>
#include <plumb/data/record_reader.hpp>

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

PLUMB_NAMESPACE_BEGIN
namespace data {

/// How far records are moved, and by which random numbers.
struct shuffle_options {
  std::size_t window =
      0;  ///< records held; 0 or 1: the order of the file; as many as there are or more: any order, each as likely
  std::uint64_t seed = 0;
  std::uint64_t epoch = 0;  ///< another order for each pass over the same file
};

/// Each record is drawn from the `window` earliest that were not handed out yet: none comes more than window - 1 places
/// too early. A pure function of the records, window, seed and epoch.
template <class Reader>
class shuffled {
 public:
  using record = typename Reader::record;

  /// `reader` outlives this.
  shuffled(Reader& reader, shuffle_options options)
      : reader_(&reader), window_(options.window), random_{options.seed, options.epoch} {}

  /// As the reader's own; an error of the reader comes out of here, and nothing that is held gets lost by it.
  std::optional<record> next() {
    if (window_ <= 1) return reader_->next();
    while (!ended_ && held_.size() < window_) {
      if (auto r = reader_->next())
        held_.push_back(std::move(*r));
      else
        ended_ = true;
    }
    if (held_.empty()) return std::nullopt;
    auto& drawn = held_[static_cast<std::size_t>(random_.below(held_.size(), drawn_++))];
    std::swap(drawn, held_.back());
    record out = std::move(held_.back());
    held_.pop_back();
    return out;
  }

  record_iterator<shuffled> begin() { return record_iterator<shuffled>(*this); }
  std::default_sentinel_t end() const { return {}; }

 private:
  Reader* reader_;
  std::size_t window_;
  random_stream random_;
  std::vector<record> held_;
  std::uint64_t drawn_ = 0;
  bool ended_ = false;
};

}  // namespace data
PLUMB_NAMESPACE_END
