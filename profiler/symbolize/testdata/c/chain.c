/* A program with functions of every linkage that a symbol table knows. */
#include <stdio.h>
#include <string.h>
#include <stdlib.h>

__attribute__((noinline)) static int local_leaf(int n) { return n * 3 + 1; }
static inline __attribute__((always_inline)) int inlined(int n) { return local_leaf(n) + 7; }
__attribute__((noinline)) int global_middle(int n) { return inlined(n) ^ 5; }
__attribute__((noinline, weak)) int weak_outer(int n) { return global_middle(n) - 2; }
__attribute__((alias("weak_outer"))) int alias_outer(int n);

int main(int argc, char **argv) {
	char *p = malloc(16 + argc);
	memset(p, 0, 16);
	printf("%d %s\n", weak_outer(argc), argv[0]);
	free(p);
	return 0;
}
