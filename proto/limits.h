/* Bounds that several programs check, each at its own border. */
#ifndef PROTO_LIMITS_H
#define PROTO_LIMITS_H

#include <stdint.h>

#define LIMITS_DOWNTIME_MS         60000               /* longest blackout that may be promised of a migration */
#define LIMITS_DOWNTIME_DEFAULT_MS 30                  /* where nobody says */
#define LIMITS_BYTES_PER_S         (UINT64_C(1) << 40) /* a share of a link */
#define LIMITS_BANDWIDTH_MIN       (UINT64_C(1) << 20) /* bytes/s that a move may be limited to */
#define LIMITS_MILLICORES          UINT64_C(1000000)   /* a share of CPU time */
#define LIMITS_VISITS              256                 /* guests that have left, of which a host keeps what they held */

#endif
