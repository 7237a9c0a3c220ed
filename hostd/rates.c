#include "hostd/rates.h"

double rate_update(struct rate *rate, uint64_t value, uint64_t now_ns)
{
    bool usable = rate->seen && value >= rate->value && now_ns > rate->at_ns;
    rate->per_s = usable ? (double)(value - rate->value) * 1e9 / (double)(now_ns - rate->at_ns) : 0;
    rate->value = value;
    rate->at_ns = now_ns;
    rate->seen = true;
    return rate->per_s;
}
