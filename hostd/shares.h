/* shares: dividing what there is of something among those who want it. Pure.
 *
 * All get the same, but none more than it can use, and what one leaves goes to the others: so either all have what they
 * can use, or everything is given. */
#ifndef HOSTD_SHARES_H
#define HOSTD_SHARES_H

#include <stddef.h>
#include <stdint.h>

struct share {
    uint64_t most;  /* it can use; 0: whatever it gets */
    uint64_t given; /* 0: not limited */
};

/* `total` 0: there is no bound, and nobody is limited. Else each gets at least 1, so that none is taken for that. */
void shares_divide(uint64_t total, struct share *shares, size_t count);

#endif
