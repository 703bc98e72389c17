/* Greets its first argument; `fail` makes it fail. */
#include "greeting.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "world";
    if (strcmp(name, "fail") == 0) {
        fprintf(stderr, "failed as asked\n");
        return 1;
    }
    greet(name);
    return 0;
}
