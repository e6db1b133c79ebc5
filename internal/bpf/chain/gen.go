package chain

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel chain chain.bpf.c -- -O2 -g -Wall -Werror -I../headers
