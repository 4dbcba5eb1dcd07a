# Doxygen's input filter for headers: the plain comment under `#pragma once` is the header's own description.
# Lines stay where they are.
NR == 1 && /^#pragma once/ { print "/// @file"; lead = 1; next }
lead && /^\/\// { sub(/^\/\//, "///"); print; next }
{ lead = 0; print }
