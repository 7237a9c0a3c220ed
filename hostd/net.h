/* The host's virtual switches (Linux bridges) and the taps that plug guests into them, in the network namespace hostd
 * runs in. Kernel calls only, each done when it returns; nothing here waits for anybody. Single-threaded. */
#ifndef HOSTD_NET_H
#define HOSTD_NET_H

#include <net/if.h>
#include <stdint.h>

#include "base/err.h"

struct net;

/* Makes the bridge when it is missing, brings it up and puts `uplink` into it (empty: none). Take: net_close(). */
MUST_CHECK int net_open(const char *bridge, const char *uplink, struct err *err, struct net **out);
void net_close(struct net *net);
/* The default switch. Lent. */
const char *net_bridge(const struct net *net);

/* The interface name of card `index` of a VM: the same for every start, different for every `scope` (a host's
 * directory), so that hosts that share a namespace do not meet. */
void net_tap_name(const char *scope, const char *vm_id, unsigned index, char out[static IF_NAMESIZE]);
/* The switch's longest packet in bytes; empty: the default one's. Fails when it is not there, or no switch. */
MUST_CHECK int net_switch_mtu(struct net *net, const char *bridge, struct err *err, uint32_t *mtu);
/* Makes a persistent tap in the switch (empty: the default one), up and with the switch's MTU. One of that name is
 * replaced. */
MUST_CHECK int net_tap_add(struct net *net, const char *name, const char *bridge, struct err *err);
/* What is not there is fine. */
void net_tap_remove(struct net *net, const char *name);

struct net_counters {
    uint64_t rx_bytes, tx_bytes; /* as the guest sees them */
};
MUST_CHECK int net_tap_counters(struct net *net, const char *name, struct err *err, struct net_counters *out);

#endif
