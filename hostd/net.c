#include "hostd/net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>

/* After netlink's own headers, which bring their own versions of what linux/if.h would declare again. */
#include <linux/if_link.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/ensure.h"
#include "hostd/text.h"

struct net {
    struct nl_sock *socket;
    char bridge[IF_NAMESIZE];
};

/* What of a link matters here. */
struct net_link {
    int index, master;
    uint32_t mtu;
    uint64_t rx_bytes, tx_bytes;
    bool bridge;
};

static int link_get(struct net *net, const char *name, struct err *err, struct net_link *out)
{
    struct rtnl_link *link = NULL;
    int rc = rtnl_link_get_kernel(net->socket, 0, name, &link);
    if (rc < 0)
        return err_set(err, rc == -NLE_OBJ_NOTFOUND || rc == -NLE_NODEV ? ERR_NOT_FOUND : ERR_INTERNAL,
            "network interface %s: %s", name, nl_geterror(rc));
    const char *type = rtnl_link_get_type(link);
    *out = (struct net_link){
        .index = rtnl_link_get_ifindex(link),
        .master = rtnl_link_get_master(link),
        .mtu = rtnl_link_get_mtu(link),
        .rx_bytes = rtnl_link_get_stat(link, RTNL_LINK_RX_BYTES),
        .tx_bytes = rtnl_link_get_stat(link, RTNL_LINK_TX_BYTES),
        .bridge = type && strcmp(type, "bridge") == 0,
    };
    rtnl_link_put(link);
    return 0;
}

static struct nl_msg *link_message(int type, int flags, int index, bool up)
{
    struct ifinfomsg header = {
        .ifi_family = AF_UNSPEC, .ifi_index = index, .ifi_flags = up ? IFF_UP : 0, .ifi_change = up ? IFF_UP : 0};
    struct nl_msg *message = nlmsg_alloc_simple(type, flags);
    ENSURE(message != NULL && nlmsg_append(message, &header, sizeof header, NLMSG_ALIGNTO) == 0);
    return message;
}

static int link_send(struct net *net, struct nl_msg *message, const char *what, const char *name, struct err *err)
{
    int rc = nl_send_sync(net->socket, message);
    return rc >= 0 ? 0 : err_set(err, ERR_INTERNAL, "cannot %s network interface %s: %s", what, name, nl_geterror(rc));
}

/* A forward delay of 0 lets a new port forward at once: a migrated guest cannot wait 15 s to be heard. The address is
 * fixed, or the bridge would take that of its lowest port and change it whenever a tap comes or goes. */
static int bridge_make(struct net *net, const char *name, struct err *err)
{
    uint8_t mac[6];
    ENSURE(getrandom(mac, sizeof mac, 0) == (ssize_t)sizeof mac);
    mac[0] = (uint8_t)((mac[0] & 0xfc) | 2); /* unicast, locally administered */
    struct nl_msg *message = link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, true);
    int rc = nla_put_string(message, IFLA_IFNAME, name) | nla_put(message, IFLA_ADDRESS, sizeof mac, mac);
    struct nlattr *info = nla_nest_start(message, IFLA_LINKINFO);
    rc |= nla_put_string(message, IFLA_INFO_KIND, "bridge");
    struct nlattr *data = nla_nest_start(message, IFLA_INFO_DATA);
    rc |= nla_put_u32(message, IFLA_BR_STP_STATE, 0) | nla_put_u32(message, IFLA_BR_FORWARD_DELAY, 0);
    ENSURE(rc == 0 && info && data);
    nla_nest_end(message, data);
    nla_nest_end(message, info);
    return link_send(net, message, "make bridge", name, err);
}

static int link_up(
    struct net *net, const char *name, const struct net_link *link, int master, uint32_t mtu, struct err *err)
{
    struct nl_msg *message = link_message(RTM_NEWLINK, 0, link->index, true);
    int rc = 0;
    if (master)
        rc |= nla_put_u32(message, IFLA_MASTER, (uint32_t)master);
    if (mtu)
        rc |= nla_put_u32(message, IFLA_MTU, mtu);
    ENSURE(rc == 0);
    return link_send(net, message, master ? "put into its bridge" : "bring up", name, err);
}

static int uplink_attach(struct net *net, const char *uplink, const struct net_link *bridge, struct err *err)
{
    struct net_link link;
    if (link_get(net, uplink, err, &link) < 0)
        return err_wrap(err, "network.uplink");
    if (link.master != 0 && link.master != bridge->index)
        return err_set(
            err, ERR_WRONG_STATE, "network.uplink %s is in another bridge already; take it out of it first", uplink);
    return link_up(net, uplink, &link, link.master ? 0 : bridge->index, 0, err);
}

static int bridge_prepare(struct net *net, const char *uplink, struct err *err)
{
    struct net_link bridge;
    struct err missing;
    if (link_get(net, net->bridge, &missing, &bridge) < 0) {
        if (bridge_make(net, net->bridge, err) < 0 || link_get(net, net->bridge, err, &bridge) < 0)
            return -1;
        log_event(LOG_INFO, "bridge.made", "name=%s", net->bridge);
    }
    if (!bridge.bridge)
        return err_set(err, ERR_WRONG_STATE, "network.bridge %s is not a bridge", net->bridge);
    if (link_up(net, net->bridge, &bridge, 0, 0, err) < 0)
        return -1;
    return uplink[0] ? uplink_attach(net, uplink, &bridge, err) : 0;
}

int net_open(const char *bridge, const char *uplink, struct err *err, struct net **out)
{
    struct net *net = mem_zalloc(sizeof *net);
    ENSURE(strlen(bridge) < sizeof net->bridge);
    strcpy(net->bridge, bridge);
    net->socket = nl_socket_alloc();
    ENSURE(net->socket != NULL);
    int rc = nl_connect(net->socket, NETLINK_ROUTE);
    if (rc < 0)
        err_set(err, ERR_INTERNAL, "cannot talk to the kernel's network configuration: %s", nl_geterror(rc));
    else
        rc = bridge_prepare(net, uplink, err);
    if (rc < 0) {
        net_close(net);
        return -1;
    }
    *out = net;
    return 0;
}

void net_close(struct net *net)
{
    if (!net)
        return;
    nl_socket_free(net->socket);
    free(net);
}

const char *net_bridge(const struct net *net)
{
    return net->bridge;
}

void net_tap_name(const char *scope, const char *vm_id, unsigned index, char out[static IF_NAMESIZE])
{
    char number[16];
    snprintf(number, sizeof number, "%u", index);
    uint64_t hash = text_hash(scope, vm_id, number, (char *)NULL);
    snprintf(out, IF_NAMESIZE, "dv%010llx", (unsigned long long)(hash & 0xffffffffffu));
}

static int tap_make(const char *name, struct err *err)
{
    cleanup_fd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ERR_UNSUPPORTED, errno, "cannot open /dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    strcpy(request.ifr_name, name);
    if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETPERSIST, 1) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot make tap %s", name);
    return 0;
}

int net_switch_mtu(struct net *net, const char *bridge, struct err *err, uint32_t *mtu)
{
    struct net_link link;
    const char *name = bridge[0] ? bridge : net->bridge;
    if (link_get(net, name, err, &link) < 0)
        return -1;
    if (!link.bridge)
        return err_set(err, ERR_INVALID, "%s is not a bridge", name);
    *mtu = link.mtu;
    return 0;
}

int net_tap_add(struct net *net, const char *name, const char *bridge, struct err *err)
{
    struct net_link tap, to;
    const char *switch_name = bridge[0] ? bridge : net->bridge;
    if (link_get(net, switch_name, err, &to) < 0)
        return err->code == ERR_NOT_FOUND
                   ? err_set(err, ERR_NOT_FOUND,
                         "there is no virtual switch %s; make it there (a Linux bridge), or name another", switch_name)
                   : err_wrap(err, "virtual switch %s", switch_name);
    if (!to.bridge)
        return err_set(err, ERR_INVALID, "virtual switch %s is not a bridge on this host", switch_name);
    net_tap_remove(net, name);
    if (tap_make(name, err) < 0)
        return -1;
    if (link_get(net, name, err, &tap) < 0 || link_up(net, name, &tap, to.index, to.mtu, err) < 0) {
        net_tap_remove(net, name);
        return -1;
    }
    return 0;
}

void net_tap_remove(struct net *net, const char *name)
{
    struct net_link link;
    struct err err;
    if (link_get(net, name, &err, &link) < 0)
        return;
    if (link_send(net, link_message(RTM_DELLINK, 0, link.index, false), "remove", name, &err) < 0)
        log_event(LOG_WARN, "tap.left", "name=%s reason=%s", name, LOG_QUOTE(err.message));
}

int net_tap_counters(struct net *net, const char *name, struct err *err, struct net_counters *out)
{
    struct net_link link;
    if (link_get(net, name, err, &link) < 0)
        return -1;
    *out = (struct net_counters){.rx_bytes = link.tx_bytes, .tx_bytes = link.rx_bytes};
    return 0;
}
