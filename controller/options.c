#include "controller/options.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "controller/api/validate.h"

#define AT(field) offsetof(struct options, field)

static const struct config_key keys[] = {
    {"log.level", CONFIG_STRING, AT(log_level), "info", 0, 0, "error, warn, info or debug"},
    {"node.name", CONFIG_STRING, AT(name), NULL, 0, 0, "name of this controller; one of cluster.member"},
    {"node.key", CONFIG_STRING, AT(key), NULL, 0, 0, "its secret key file, made with `drover keygen`, mode 0600"},
    {"node.directory", CONFIG_STRING, AT(directory), "/var/lib/drover/controller", 0, 0,
        "where the log and its snapshots are kept"},
    {"raft.listen", CONFIG_STRING, AT(raft_listen), NULL, 0, 0,
        "tcp://IP:PORT for the other controllers; the next port is used too"},
    {"raft.election_ms", CONFIG_UINT, AT(election_ms), "500", 100, 60000, "a leader silent for so long is replaced"},
    {"raft.heartbeat_ms", CONFIG_UINT, AT(raft_heartbeat_ms), "50", 10, 10000,
        "how often a leader shows that it is there"},
    {"raft.snapshot_threshold", CONFIG_UINT, AT(snapshot_threshold), "8192", 16, 1000000,
        "entries between two snapshots"},
    {"api.listen", CONFIG_STRING, AT(api_listen), NULL, 0, 0, "tcp://IP:PORT for hosts and the command line"},
    {"metrics.listen", CONFIG_STRING, AT(metrics_listen), "", 0, 0, "IP:PORT for Prometheus; empty: none"},
    {"cluster.member", CONFIG_LIST, AT(member_lines), NULL, 0, 0,
        "one line for every controller: NAME PUBLIC-KEY tcp://RAFT-ADDRESS tcp://API-ADDRESS"},
    {"cluster.admin", CONFIG_LIST, AT(admin_lines), "", 0, 0,
        "one line for every user who may do everything: NAME PUBLIC-KEY"},
    {"cluster.join", CONFIG_BOOL, AT(join), "false", 0, 0,
        "true: a new member, to be added with `drover cluster member add`"},
    {"lease.ms", CONFIG_UINT, AT(lease_ms), "5000", 1000, 600000, "a host not heard for so long is unreachable"},
    {"heartbeat.ms", CONFIG_UINT, AT(heartbeat_ms), "1000", 100, 60000, "how often a host renews its lease"},
    {"optimizer.automatic", CONFIG_BOOL, AT(optimizer_automatic), "false", 0, 0,
        "true: hot hosts are relieved without being asked, until `drover optimizer set` says otherwise"},
    {"optimizer.high_cpu", CONFIG_DOUBLE, AT(high_cpu), "0.80", 0, 0, "share of its cores above which a host is hot"},
    {"optimizer.low_cpu", CONFIG_DOUBLE, AT(low_cpu), "0.60", 0, 0, "share it is relieved to"},
    {"optimizer.high_memory", CONFIG_DOUBLE, AT(high_memory), "0.90", 0, 0,
        "share of its memory above which a host is hot"},
    {"optimizer.low_memory", CONFIG_DOUBLE, AT(low_memory), "0.80", 0, 0, "share it is relieved to"},
    {"optimizer.high_iops", CONFIG_DOUBLE, AT(high_iops), "0.80", 0, 0,
        "share of its disk operations above which a host is hot"},
    {"optimizer.low_iops", CONFIG_DOUBLE, AT(low_iops), "0.60", 0, 0, "share it is relieved to"},
    {"optimizer.hold_s", CONFIG_UINT, AT(hold_s), "20", 0, 86400, "how long a host must have been hot, in seconds"},
    {"optimizer.rest_s", CONFIG_UINT, AT(rest_s), "120", 0, 86400, "how long a VM stays after it moved, in seconds"},
    {"optimizer.settle_s", CONFIG_UINT, AT(settle_s), "10", 0, 86400, "pause between two automatic moves, in seconds"},
    {"optimizer.min_gain", CONFIG_DOUBLE, AT(min_gain), "0.02", 0, 0,
        "least fall of the imbalance that is worth a move"},
    {NULL},
};

/* Splits one line into exactly `count` words. */
static int line_split(char *line, const char *key, size_t count, const char **words, struct err *err)
{
    char *save = NULL;
    size_t n = 0;
    for (char *word = strtok_r(line, " \t", &save); word; word = strtok_r(NULL, " \t", &save)) {
        if (n == count)
            return err_set(err, ERR_INVALID, "key %s: '%.64s' is one word too many", key, word);
        words[n++] = word;
    }
    if (n < count)
        return err_set(
            err, ERR_INVALID, "key %s: %zu words expected, '%.64s' has %zu", key, count, words[0] ? words[0] : "", n);
    return 0;
}

static int address_take(const char *text, const char *key, struct err *err, char out[WIRE_ADDRESS_MAX])
{
    if (validate_address(text, err) < 0)
        return err_wrap(err, "key %s", key);
    snprintf(out, WIRE_ADDRESS_MAX, "%s", text);
    return 0;
}

static int member_line(char *line, struct err *err, struct options *o)
{
    const char *words[4] = {0};
    if (o->member_count == OPTIONS_MEMBERS_MAX)
        return err_set(err, ERR_INVALID, "key cluster.member: more than %d members", OPTIONS_MEMBERS_MAX);
    struct state_member *m = &o->members[o->member_count];
    if (line_split(line, "cluster.member", 4, words, err) < 0 || validate_name("member", words[0], err) < 0 ||
        key_parse(words[1], err, m->public_key) < 0 ||
        address_take(words[2], "cluster.member", err, m->raft_address) < 0 ||
        address_take(words[3], "cluster.member", err, m->api_address) < 0)
        return err_wrap(err, "key cluster.member");
    for (size_t i = 0; i < o->member_count; i++)
        if (strcmp(o->members[i].name, words[0]) == 0 ||
            memcmp(o->members[i].public_key, m->public_key, KEY_BYTES) == 0)
            return err_set(err, ERR_INVALID, "key cluster.member: %s, or its public key, is there twice", words[0]);
    snprintf(m->name, sizeof m->name, "%s", words[0]);
    o->member_count++;
    return 0;
}

static int admin_line(char *line, struct err *err, struct options *o)
{
    const char *words[2] = {0};
    if (o->admin_count == OPTIONS_ADMINS_MAX)
        return err_set(err, ERR_INVALID, "key cluster.admin: more than %d users", OPTIONS_ADMINS_MAX);
    struct options_admin *a = &o->admins[o->admin_count];
    if (line_split(line, "cluster.admin", 2, words, err) < 0 || validate_name("user", words[0], err) < 0 ||
        key_parse(words[1], err, a->public_key) < 0)
        return err_wrap(err, "key cluster.admin");
    snprintf(a->name, sizeof a->name, "%s", words[0]);
    o->admin_count++;
    return 0;
}

static int lines_take(
    const char *text, int (*take)(char *, struct err *, struct options *), struct err *err, struct options *o)
{
    cleanup_free char *copy = mem_strdup(text);
    char *save = NULL;
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (take(line, err, o) < 0)
            return -1;
    return 0;
}

static int threshold_take(
    const char *name, double high, double low, enum resource resource, struct err *err, struct options *o)
{
    if (!(low > 0 && low < high && high <= 10))
        return err_set(
            err, ERR_INVALID, "optimizer.low_%s must be less than optimizer.high_%s, and both more than 0", name, name);
    o->optimizer.high[resource] = high;
    o->optimizer.low[resource] = low;
    return 0;
}

static int options_check(struct err *err, struct options *o)
{
    if (lines_take(o->member_lines, member_line, err, o) < 0 || lines_take(o->admin_lines, admin_line, err, o) < 0 ||
        validate_name("controller", o->name, err) < 0 || validate_address(o->raft_listen, err) < 0 ||
        validate_address(o->api_listen, err) < 0)
        return -1;
    if (log_level_parse(o->log_level) < 0)
        return err_set(err, ERR_INVALID, "key log.level: '%.32s' is not error, warn, info or debug", o->log_level);
    bool found = false;
    for (size_t i = 0; i < o->member_count; i++)
        found = found || strcmp(o->members[i].name, o->name) == 0;
    if (!found && !o->join)
        return err_set(err, ERR_INVALID, "node.name %s is not among the cluster.member lines", o->name);
    if (o->heartbeat_ms * 2 > o->lease_ms)
        return err_set(err, ERR_INVALID,
            "lease.ms must be at least twice heartbeat.ms, or every late heartbeat costs a host its lease");
    optimizer_defaults(&o->optimizer);
    o->optimizer.hold_ms = o->hold_s * 1000;
    o->optimizer.rest_ms = o->rest_s * 1000;
    o->optimizer.min_gain = o->min_gain;
    if (threshold_take("cpu", o->high_cpu, o->low_cpu, RESOURCE_CPU, err, o) < 0 ||
        threshold_take("memory", o->high_memory, o->low_memory, RESOURCE_MEMORY, err, o) < 0 ||
        threshold_take("iops", o->high_iops, o->low_iops, RESOURCE_IOPS, err, o) < 0)
        return -1;
    return 0;
}

/* Takes `o`. */
static int options_take(const char *name, struct options *o, struct err *err, struct options *out)
{
    if (options_check(err, o) < 0) {
        config_free(keys, o);
        return err_wrap(err, "%s", name);
    }
    *out = *o;
    return 0;
}

int options_parse(const char *name, const char *text, struct err *err, struct options *out)
{
    struct options o = {0};
    return config_parse(name, text, keys, err, &o) < 0 ? -1 : options_take(name, &o, err, out);
}

int options_load(const char *path, struct err *err, struct options *out)
{
    struct options o = {0};
    return config_load(path, keys, err, &o) < 0 ? -1 : options_take(path, &o, err, out);
}

void options_free(struct options *options)
{
    config_free(keys, options);
}

void options_print_manual(FILE *out)
{
    config_print_manual(keys, out);
}
