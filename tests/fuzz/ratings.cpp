// Any bytes through rating_reader, in both formats.
#include "support/fuzz_readers.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace plumb_test;
  fuzz_reader<rating_reader>(bytes, size, {format::helpsteer2, format::ultrafeedback}, [](const rated_response& r) {
    require(!r.response.blank());
    require(r.ratings.size() == 5 || r.ratings.size() <= 2);
    for (const double rating : r.ratings) require(rating == rating);
  });
  return 0;
}
