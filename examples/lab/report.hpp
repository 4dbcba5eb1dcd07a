#pragma once
// What a run says at its end: tables and replies on the terminal, every figure in summary.json, the same with curves in report.html.

#include "settings.hpp"
#include "stages.hpp"

namespace lab {

/// What one seed's stages of measuring found, by stage, and what each of its stages took.
struct seed_run {
  std::uint64_t seed = 0;
  std::map<std::string, findings> found{};
  std::map<std::string, double> seconds{};
  std::map<std::string, std::int64_t> tokens{};
};

/// A table of the report: the stage that measures it, and what it says and does not say.
struct table_text {
  std::string stage, title, shows, does_not_show;
};

extern const std::vector<table_text> lab_tables, file_tables;

/// Tables and replies on the terminal, summary.json and report.html in `s.out`. `tables` in order; those whose stage was not run are left out.
void report(const settings& s, const std::string& demo, const std::vector<table_text>& tables, const std::vector<seed_run>& runs,
                   const std::string& opening, const std::string& account = {});

}  // namespace lab
