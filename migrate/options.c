#include "migrate/options.h"

#include <string.h>

#include "proto/limits.h"

#define KEY(name, type, field, fallback, min, max, help)                                                               \
    {                                                                                                                  \
        name, type, offsetof(struct options, field), fallback, min, max, help                                          \
    }

const struct config_key options_keys[] = {
    KEY("migration.id", CONFIG_STRING, migration_id, NULL, 0, 0, "name of this migration; both sides must agree"),
    KEY("key.file", CONFIG_STRING, key_file, NULL, 0, 0, "this host's .key file"),
    KEY("key.peer", CONFIG_STRING, key_peer, NULL, 0, 0, "public key of the other host (Z85)"),
    KEY("control.socket", CONFIG_STRING, control_socket, NULL, 0, 0, "UNIX socket for events and commands"),
    KEY("record.file", CONFIG_STRING, record_file, NULL, 0, 0, "file that records what cannot be taken back"),
    KEY("qemu.qmp", CONFIG_STRING, qmp, NULL, 0, 0, "QMP socket of QEMU, for the engine alone"),
    KEY("qemu.pid", CONFIG_UINT, qemu_pid, NULL, 2, 4194304, "process id of QEMU"),
    KEY("qemu.ram_file", CONFIG_STRING, ram_file, NULL, 0, 0, "file that is the guest's RAM"),
    KEY("qemu.ram_bytes", CONFIG_UINT, ram_bytes, NULL, 0, 0, "its size"),
    KEY("channel.listen", CONFIG_STRING, listen, "", 0, 0,
        "destination: address to listen at, tcp://IP:PORT (port 0: any)"),
    KEY("channel.connect", CONFIG_STRING, connect, "", 0, 0, "source: address the destination listens at"),
    KEY("channel.stripes", CONFIG_UINT, stripes, "2", 1, 16, "connections and worker threads for pages"),
    KEY("limits.max_downtime_ms", CONFIG_UINT, max_downtime_ms, "30", 1, LIMITS_DOWNTIME_MS,
        "longest blackout the switch may predict"),
    KEY("limits.bandwidth", CONFIG_UINT, bandwidth, "0", 0, 0, "bytes per second; 0: not limited"),
    KEY("limits.share", CONFIG_UINT, share, "0", 0, LIMITS_BYTES_PER_S,
        "bytes per second that this host leaves to this migration; 0: not limited; command bandwidth changes it"),
    KEY("limits.cpu", CONFIG_UINT, cpu, "0", 0, LIMITS_MILLICORES,
        "thousandths of a core that this engine may use on average; 0: not limited; command cpu changes it"),
    KEY("limits.cores", CONFIG_STRING, cores, "", 0, 0,
        "cores that this engine may run on, e.g. 0,2-3; empty: any. It says so and runs anywhere if none of them is to "
        "be had"),
    KEY("limits.max_rounds", CONFIG_UINT, max_rounds, "60", 1, 1000, "rounds of pre-copy before it gives up"),
    KEY("policy.mode", CONFIG_STRING, mode, "precopy", 0, 0, "source: precopy, auto, hybrid or postcopy"),
    KEY("policy.on_no_convergence", CONFIG_STRING, on_no_convergence, "", 0, 0,
        "source: postcopy, throttle or cancel; empty: postcopy with mode auto, else cancel"),
    KEY("policy.resume", CONFIG_BOOL, resume, "false", 0, 0,
        "source: an engine of this migration died in post-copy (record: handed-over); go on where it was"),
    KEY("forecast.last_wire", CONFIG_UINT, last_wire, "0", 0, 0,
        "source: bytes/s on the wire of the last migration to that host; 0: not known"),
    KEY("forecast.last_raw", CONFIG_UINT, last_raw, "0", 0, 0, "source: the same in bytes of guest RAM"),
    KEY("forecast.last_pace", CONFIG_UINT, last_pace, "0", 0, 0,
        "source: pace_bytes_per_s of that migration's forecast; 0: not known"),
    KEY("forecast.last_switch_us", CONFIG_UINT, last_switch_us, "0", 0, UINT64_C(60000000),
        "source: microseconds that guests have stood still lately in migrations to that host, besides their last "
        "pages; 0: not known"),
    KEY("bytes.silent_writes", CONFIG_BOOL, silent_writes, "true", 0, 0,
        "source: do not send a page again that was written with what it held"),
    KEY("bytes.delta_memory", CONFIG_UINT, delta_memory, "67108864", 0, UINT64_C(1) << 40,
        "source: bytes for copies of pages sent more than once, to send what changed in them; 0: none"),
    KEY("reuse.image", CONFIG_STRING, image, "", 0, 0,
        "destination: what the guest held when it was here last (drover-migrate keep); empty: nothing; need not exist"),
    KEY("reuse.key_file", CONFIG_STRING, image_key, "", 0, 0, "destination: the image's key"),
    KEY("tracker.kind", CONFIG_STRING, tracker, "auto", 0, 0,
        "who tells what the guest writes: wp-async (Linux 6.7), wp-sync (5.19), auto: the first of them that works; "
        "qemu: "
        "QEMU's own migration, to be set on both sides"),
    KEY("receipt.enabled", CONFIG_BOOL, receipt, "false", 0, 0,
        "source: hand over only if the destination holds every page as it was sent, by a hash over all of them; verify "
        "includes it"),
    KEY("verify.enabled", CONFIG_BOOL, verify, "false", 0, 0, "hash all of RAM on both sides at the switch"),
    KEY("clock.correct", CONFIG_BOOL, correct_clock, "true", 0, 0,
        "destination: set the guest's clock forward by the time it stood still (not with KVM, not with tracker qemu)"),
    KEY("storage.disks", CONFIG_STRING, disks, "", 0, 0,
        "numbers of the disks whose content moves, too, e.g. 0,2; the same on both sides; empty: none"),
    KEY("announce.interface", CONFIG_STRING, announce_interface, "", 0, 0,
        "destination: where to announce the guest; empty: nowhere"),
    KEY("announce.addresses", CONFIG_STRING, announce_addresses, "", 0, 0,
        "file of the guest's IP addresses, one 'MAC IP' or 'MAC IP router' a line: the source reads it, the "
        "destination "
        "announces and writes them; need not exist"),
    KEY("announce.mac", CONFIG_LIST, announce_macs, "", 0, 0, "MAC address to announce; may be given again"),
    KEY("announce.port", CONFIG_LIST, announce_ports, "", 0, 0,
        "destination: port (tap) of the guest's on this host, where its first frame is listened for; may be given "
        "again"),
    KEY("log.level", CONFIG_STRING, log_level, "info", 0, 0, "error, warn, info or debug"),
    {0},
};

bool options_postcopy_last(const struct options_policy *chosen)
{
    return chosen->stuck == STUCK_POSTCOPY || (chosen->stuck == STUCK_THROTTLE && chosen->mode == MODE_AUTO);
}

struct policy_limits options_limits(const struct options *options, const struct options_policy *chosen)
{
    return (struct policy_limits){
        .max_downtime_us = options->max_downtime_ms * 1000,
        .max_rounds = (uint32_t)options->max_rounds,
        .switch_us = options->last_switch_us,
        .postcopy_next = options_postcopy_last(chosen),
        .throttle = chosen->stuck == STUCK_THROTTLE,
    };
}

int options_policy(const struct options *options, struct err *err, struct options_policy *out)
{
    static const char *const modes[] = {
        [MODE_PRECOPY] = "precopy", [MODE_AUTO] = "auto", [MODE_HYBRID] = "hybrid", [MODE_POSTCOPY] = "postcopy"};
    struct options_policy policy;
    size_t mode = 0;
    while (mode < sizeof modes / sizeof *modes && strcmp(options->mode, modes[mode]) != 0)
        mode++;
    if (mode == sizeof modes / sizeof *modes)
        return err_set(err, ERR_INVALID, "policy.mode is precopy, auto, hybrid or postcopy, not %s", options->mode);
    policy.mode = (enum options_mode)mode;
    if (!tracker_kind_parse(options->tracker, &policy.tracker))
        return err_set(err, ERR_INVALID, "tracker.kind is auto, wp-async, wp-sync or qemu, not %s", options->tracker);
    static const char *const answers[] = {
        [STUCK_CANCEL] = "cancel", [STUCK_POSTCOPY] = "postcopy", [STUCK_THROTTLE] = "throttle"};
    size_t stuck = 0;
    while (stuck < sizeof answers / sizeof *answers && strcmp(options->on_no_convergence, answers[stuck]) != 0)
        stuck++;
    if (options->on_no_convergence[0] == '\0')
        stuck = policy.mode == MODE_AUTO ? STUCK_POSTCOPY : STUCK_CANCEL;
    if (stuck == sizeof answers / sizeof *answers)
        return err_set(err, ERR_INVALID, "policy.on_no_convergence is postcopy, throttle or cancel, not %s",
            options->on_no_convergence);
    policy.stuck = (enum options_stuck)stuck;
    if (policy.tracker == TRACKER_QEMU && (policy.mode == MODE_HYBRID || policy.mode == MODE_POSTCOPY))
        return err_set(err, ERR_UNSUPPORTED,
            "with tracker qemu all pages travel before the switch, so policy.mode can not be %s", options->mode);
    if (policy.tracker == TRACKER_QEMU && options->disks[0])
        return err_set(err, ERR_UNSUPPORTED, "with tracker qemu no disks can be taken along (storage.disks)");
    if (policy.tracker == TRACKER_QEMU)
        policy.stuck = STUCK_CANCEL;
    *out = policy;
    return 0;
}
