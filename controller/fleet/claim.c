#include "controller/fleet/claim.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/ensure.h"

#define RIVALS_MAX  256u /* of all hosts; the one heard longest ago makes room */
#define ID_MAX      257
#define TOGETHER_MS 1000u /* what a session sent before its machine went down is here long before that */

/* A machine that was refused. */
struct rival {
    char host[STATE_NAME_MAX];
    char machine[ID_MAX], boot_id[ID_MAX];
    char why[ERR_MESSAGE_MAX];
    uint64_t first_ms, last_ms;
    bool second; /* it and the session's machine are up at one time */
};

struct claims {
    struct rival *rivals;
    size_t count;
};

struct claims *claims_new(void)
{
    return mem_zalloc(sizeof(struct claims));
}

void claims_clear(struct claims *claims)
{
    free(claims->rivals);
    *claims = (struct claims){0};
}

void claims_free(struct claims *claims)
{
    if (!claims)
        return;
    claims_clear(claims);
    free(claims);
}

static bool differs(const char *a, const char *b)
{
    return a[0] && b[0] && strcmp(a, b) != 0;
}

static bool another(const Drover__HostFacts *a, const Drover__HostFacts *b)
{
    return differs(a->machine, b->machine) || differs(a->boot_id, b->boot_id);
}

static struct rival *find(const struct claims *claims, const char *host, const Drover__HostFacts *facts)
{
    for (size_t i = 0; i < claims->count; i++) {
        struct rival *r = &claims->rivals[i];
        if (strcmp(r->host, host) == 0 && strcmp(r->machine, facts->machine) == 0 &&
            strcmp(r->boot_id, facts->boot_id) == 0)
            return r;
    }
    return NULL;
}

static struct rival *oldest(const struct claims *claims)
{
    struct rival *old = &claims->rivals[0];
    for (size_t i = 1; i < claims->count; i++)
        if (claims->rivals[i].last_ms < old->last_ms)
            old = &claims->rivals[i];
    return old;
}

static struct rival *make(struct claims *claims, const char *host, const Drover__HostFacts *facts, uint64_t now_ms)
{
    struct rival *r;
    if (claims->count < RIVALS_MAX) {
        claims->rivals = mem_realloc(claims->rivals, (claims->count + 1) * sizeof *claims->rivals);
        r = &claims->rivals[claims->count++];
    } else {
        r = oldest(claims);
    }
    *r = (struct rival){.first_ms = now_ms};
    snprintf(r->host, sizeof r->host, "%s", host);
    snprintf(r->machine, sizeof r->machine, "%s", facts->machine);
    snprintf(r->boot_id, sizeof r->boot_id, "%s", facts->boot_id);
    return r;
}

static void forget(struct claims *claims, struct rival *r)
{
    *r = claims->rivals[--claims->count];
}

static int decide(const char *host, const Drover__HostHelloRequest *hello, const struct claim_known *known,
    const struct rival *rival, struct err *err)
{
    const Drover__HostFacts *logged = known->logged;
    if (known->session && another(known->session, hello->facts))
        return err_set(err, ERR_EXISTS,
            "host %s is heard from another machine, or was before this one booted a moment ago; no two may have one "
            "key: `drover keygen` makes one for each",
            host);
    if (rival && rival->second && !hello->stand_in)
        return err_set(err, ERR_EXISTS,
            "host %s was heard from another machine while this one "
            "had its key, too; give this one a key of its own, or, "
            "if the other is gone and switched off for good, start `drover-hostd --stand-in` once on this one",
            host);
    if (known->early && logged && another(logged, hello->facts))
        return err_set(
            err, ERR_UNAVAILABLE, "host %s was another machine, or not booted anew, which may still be heard", host);
    if (known->holds && logged && differs(logged->machine, hello->facts->machine) && !hello->stand_in)
        return err_set(err, ERR_EXISTS,
            "host %s is another machine, which may still run VMs; if that one is gone and switched off for good, start "
            "`drover-hostd --stand-in` once on this one, else give this one a key of its own",
            host);
    return 0;
}

void claims_forget(struct claims *claims, const char *host)
{
    for (size_t i = claims->count; i-- > 0;)
        if (strcmp(claims->rivals[i].host, host) == 0)
            forget(claims, &claims->rivals[i]);
}

int claims_check(struct claims *claims, const char *host, const Drover__HostHelloRequest *hello,
    const struct claim_known *known, uint64_t now_ms, struct err *err, bool *news)
{
    struct rival *r = find(claims, host, hello->facts);
    if (decide(host, hello, known, r, err) == 0) {
        if (r)
            forget(claims, r);
        return 0;
    }
    if (!r)
        r = make(claims, host, hello->facts, now_ms);
    ENSURE(err);
    *news = strcmp(r->why, err->message) != 0;
    snprintf(r->why, sizeof r->why, "%s", err->message);
    r->last_ms = now_ms;
    return -1;
}

void claims_heard(struct claims *claims, const char *host, const Drover__HostFacts *session, uint64_t now_ms)
{
    for (size_t i = 0; i < claims->count; i++) {
        struct rival *r = &claims->rivals[i];
        if (strcmp(r->host, host) == 0 && now_ms - r->first_ms >= TOGETHER_MS &&
            (differs(r->machine, session->machine) || differs(r->boot_id, session->boot_id)))
            r->second = true;
    }
}

const char *claims_refused(const struct claims *claims, const char *host, uint64_t now_ms)
{
    const struct rival *last = NULL;
    for (size_t i = 0; i < claims->count; i++) {
        const struct rival *r = &claims->rivals[i];
        if (strcmp(r->host, host) == 0 && now_ms - r->last_ms < CLAIM_SHOWN_MS && (!last || r->last_ms > last->last_ms))
            last = r;
    }
    return last ? last->why : NULL;
}
