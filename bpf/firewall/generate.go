package firewall

// The compiler is named with its version, so that a build elsewhere gives the
// same bytes; the committed object is compared with a fresh one.
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type verdict -type outcome -type rule -type key4 -type key6 -type config -type counter filter filter.c -- -I../include -mcpu=v3 -Wall -Wextra -Werror
