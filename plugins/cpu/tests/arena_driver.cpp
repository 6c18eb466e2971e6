// driver BYTES OFFSET [given]: takes a buffer of that many bytes from an arena, others on both sides of it, and writes the
// byte at the offset; after giving the buffer back, if asked to. Three runs alike: the last one follows the arena's plan.
#include <cstdlib>

#include "arena.h"

int main(int count, char **arguments) {
  if (count < 3) return 2;
  const size_t bytes = size_t(atoll(arguments[1]));
  const long offset = atol(arguments[2]);
  const epk::Account account;
  epk::Arena arena(account);
  for (int run = 0; run < 3; run++) {
    void *before = arena.take(bytes), *middle = arena.take(bytes), *after = arena.take(bytes);
    arena.give(before);
    before = arena.take(bytes / 2);
    if (count > 3) arena.give(middle);
    if (run == 2) static_cast<volatile char *>(middle)[offset] = 1;
    if (count <= 3) arena.give(middle);
    arena.give(after);
    arena.give(before);
    arena.settle();
  }
}
