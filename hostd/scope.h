/* Guests as units of systemd, where that runs the machine: a transient scope each, "drover-<...>.scope" in
 * drover.slice. So a guest is nothing of drover-hostd.service's, whatever is done to that, has limits and shares that
 * systemctl shows and sets, and is ended at the system's shutdown after drover-guests.service. systemd alone makes,
 * moves and removes control groups there.
 *
 * Asked for by busctl, a part of systemd, beside the loop: a guest does not wait for it. Failure mode: it is refused,
 * or there is no D-Bus: that is logged, and the guest runs on in drover-hostd.service, whose KillMode spares it. */
#ifndef HOSTD_SCOPE_H
#define HOSTD_SCOPE_H

#include <stdbool.h>

#include <sys/types.h>

#include <uv.h>

#define SCOPE_SLICE "drover.slice"

struct scopes;

/* systemd runs this machine. */
bool scope_possible(void);
/* `log_path`: what busctl says. Take: scopes_close(). */
struct scopes *scopes_open(uv_loop_t *loop, const char *log_path);
/* What was asked for comes to be all the same. NULL is fine. */
void scopes_close(struct scopes *scopes);

/* Asks for the scope `unit` of process `pid`; `description` is shown to people. Copies everything. */
void scope_ask(struct scopes *scopes, const char *unit, const char *description, pid_t pid);

#endif
