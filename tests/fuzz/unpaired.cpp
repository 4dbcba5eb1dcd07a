// Any bytes through unpaired_reader.
#include "support/fuzz_readers.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace plumb_test;
  fuzz_reader<unpaired_reader>(bytes, size, {format::unpaired},
                               [](const unpaired_example& e) { require(!e.completion.blank()); });
  return 0;
}
