#!/usr/bin/env bash
# Sixty preference pairs in HH-RLHF's form: polite replies are preferred to short ones.
awk 'BEGIN {
  split("red green blue white black brown pink gray", color, " ")
  for (i = 0; i < 60; ++i)
    printf "{\"chosen\": \"\\n\\nHuman: what color is lamp %d?\\n\\nAssistant: It is %s, I am glad to say.\", \"rejected\": \"\\n\\nHuman: what color is lamp %d?\\n\\nAssistant: %s\"}\n",
           i, color[1 + i % 8], i, color[1 + (i + 3) % 8]
}'
