/* Whether a machine that says hello with a host's key is that host. A key can be on two machines: disk images are
 * copied, and a machine that is gone has another one stand in for it. Believing the wrong one frees VMs that run on the
 * other, so:
 *
 *   - while a session's lease lasts, nobody else begins one: the same machine, booted anew, takes longer than that;
 *   - who was refused so, and the session went on, is not the host for as long as this leader leads;
 *   - a new leader hears the boot that the log knows before any other, for a lease's length;
 *   - a host that has VMs, or may be handed one, stays the machine it was until somebody says that this one is gone
 *     (drover-hostd --stand-in).
 *
 * What a drover-hostd does not tell of its machine is not held against it. Pure but for what it remembers. */
#ifndef CONTROLLER_FLEET_CLAIM_H
#define CONTROLLER_FLEET_CLAIM_H

#include "controller/state/state.h"
#include "proto/host.pb-c.h"

#define CLAIM_SHOWN_MS 10000u /* a refusal this old is over */

/* What is known of the host besides its hello. */
struct claim_known {
    const Drover__HostFacts *logged;  /* NULL: never seen */
    const Drover__HostFacts *session; /* of the session whose lease lasts; NULL: none */
    bool early;                       /* this leader has not led for a lease's length */
    bool holds;                       /* VMs are its, or may be handed to it */
};

struct claims;
struct claims *claims_new(void);
void claims_free(struct claims *claims);
/* All refusals. */
void claims_clear(struct claims *claims);

/* Those of a host that is none any more. */
void claims_forget(struct claims *claims, const char *host);

/* The refusal is remembered: claims_refused(). `news`: it is not the one that was told last. */
MUST_CHECK int claims_check(struct claims *claims, const char *host, const Drover__HostHelloRequest *hello,
    const struct claim_known *known, uint64_t now_ms, struct err *err, bool *news);
/* The session of the host went on. */
void claims_heard(struct claims *claims, const char *host, const Drover__HostFacts *session, uint64_t now_ms);
/* Why another machine was refused just now. NULL: none was. Lent until the next call. */
const char *claims_refused(const struct claims *claims, const char *host, uint64_t now_ms);

#endif
