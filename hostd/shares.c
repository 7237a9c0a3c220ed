#include "hostd/shares.h"

#include <stdbool.h>

/* Gives those what they can use who are content with less than an equal part of what is left; false: there are none. */
static bool serve_modest(uint64_t *left, struct share *shares, size_t count, size_t *waiting)
{
    uint64_t part = *left / *waiting;
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        struct share *s = &shares[i];
        if (s->given || s->most == 0 || s->most > part)
            continue;
        s->given = s->most;
        *left -= s->most;
        (*waiting)--;
        any = true;
    }
    return any;
}

void shares_divide(uint64_t total, struct share *shares, size_t count)
{
    size_t waiting = count;
    uint64_t left = total;
    for (size_t i = 0; i < count; i++)
        shares[i].given = 0;
    if (total == 0)
        return;
    while (waiting && serve_modest(&left, shares, count, &waiting))
        continue;
    for (size_t i = 0; i < count; i++)
        if (!shares[i].given)
            shares[i].given = left / waiting ? left / waiting : 1;
}
