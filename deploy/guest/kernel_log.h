/* What the guest's kernel has complained of: that time went wrong, or that somebody got no CPU for long. */
#ifndef GUEST_KERNEL_LOG_H
#define GUEST_KERNEL_LOG_H

#include <stddef.h>

/* Number of such lines in the kernel's log since it started, or -1; the newest of them goes to `line`. */
int kernel_log_complaints(char *line, size_t size);

#endif
