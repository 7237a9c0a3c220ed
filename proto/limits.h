/* Bounds that several programs check, each at its own border. */
#ifndef PROTO_LIMITS_H
#define PROTO_LIMITS_H

#define LIMITS_DOWNTIME_MS         60000 /* longest blackout that may be promised of a migration */
#define LIMITS_DOWNTIME_DEFAULT_MS 30    /* where nobody says */

#endif
