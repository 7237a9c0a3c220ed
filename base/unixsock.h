/* UNIX stream sockets at a path. */
#ifndef BASE_UNIXSOCK_H
#define BASE_UNIXSOCK_H

#include "base/err.h"

/* Listens at `path`, for this user alone; a stale socket there is replaced. Take: close(). */
MUST_CHECK int unixsock_listen(const char *path, int backlog, struct err *err, int *out);
/* Connects without waiting: a server that lets connections queue up counts as dead (ERR_UNAVAILABLE), because waiting
 * for it would hold up everything else. The descriptor does not block. Take: close(). */
MUST_CHECK int unixsock_connect(const char *path, struct err *err, int *out);

#endif
