#include "migrate/pace.h"

#define SECOND_NS 1e9

static void pace_pay(struct pace *p, uint64_t now_ns, double per_ns)
{
    if (p->at_ns && now_ns > p->at_ns)
        p->owed -= (double)(now_ns - p->at_ns) * per_ns;
    if (!p->at_ns || now_ns > p->at_ns)
        p->at_ns = now_ns;
    double kept = -(double)p->burst_ns * per_ns, most = (double)p->debt_ns * per_ns;
    p->owed = p->owed < kept ? kept : p->owed > most ? most : p->owed;
}

void pace_spend(struct pace *p, uint64_t now_ns, uint64_t per_s, uint64_t units)
{
    pace_pay(p, now_ns, (double)per_s / SECOND_NS);
    if (per_s)
        p->owed += (double)units;
}

uint64_t pace_wait_ns(struct pace *p, uint64_t now_ns, uint64_t per_s)
{
    double per_ns = (double)per_s / SECOND_NS;
    pace_pay(p, now_ns, per_ns);
    if (per_s == 0 || p->owed <= 0)
        return 0;
    return (uint64_t)(p->owed / per_ns) + 1;
}
