/* Serves /metrics (and /healthz) over HTTP with libmicrohttpd, run by the libuv loop through its epoll descriptor: no
 * threads. GET and HEAD only; few connections, small requests, short time-outs. */
#ifndef BASE_EXPORTER_H
#define BASE_EXPORTER_H

#include <uv.h>

#include "base/err.h"
#include "base/metrics.h"

struct exporter;

/* `collect` writes all metrics for one scrape. `address` is IP:PORT (port 0: any). Take: exporter_close(). */
MUST_CHECK int exporter_open(uv_loop_t *loop, const char *address, void (*collect)(void *user, struct metrics *m),
    void *user, struct err *err, struct exporter **out);
/* The port it listens on. */
uint16_t exporter_port(const struct exporter *exporter);
void exporter_close(struct exporter *exporter);

#endif
