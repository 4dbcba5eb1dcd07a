#pragma once
// plumb::data: readers of preference data. Stands on simdjson and zlib; CMake target plumb::data.

#include <plumb/data/line_reader.hpp>  // lines of a file, plain or gzip
#include <plumb/data/preference.hpp>   // preference_reader: pairs of replies
#include <plumb/data/ratings.hpp>      // rating_reader: replies with ratings
#include <plumb/data/reading.hpp>      // formats, options, errors, summary
#include <plumb/data/records.hpp>      // what is handed out, and its text
#include <plumb/data/shuffle.hpp>      // shuffled: any order, bounded memory
#include <plumb/data/unpaired.hpp>     // unpaired_reader: replies found good or bad
