package observe

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel observe observe.bpf.c -- -O2 -g -Wall -Werror -I../headers
