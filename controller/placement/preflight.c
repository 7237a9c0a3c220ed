#include "controller/placement/preflight.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/ensure.h"
#include "base/format.h"
#include "controller/pb.h"
#include "controller/placement/baseline.h"
#include "controller/placement/processor.h"
#include "proto/pbjson.h"

#define TSC_TOLERANCE_PPM 250 /* what KVM lets pass without scaling */

/* The finding under construction belongs to the check that runs. */
struct run {
    const struct preflight_input *in;
    const char *code;
    enum err_code refusal;
    struct preflight *out;
};

__attribute__((format(printf, 2, 3))) static void say(char **field, const char *fmt, ...)
{
    char once[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(once, sizeof once, fmt, args);
    va_end(args);
    pb_string(field, once);
}

/* Room is for more than all checks can find, because each looks at no more disks and cards than a VM may have. */
static Drover__Finding *find(struct run *run, Drover__FindingSeverity severity)
{
    struct preflight *out = run->out;
    ENSURE(out->count < PREFLIGHT_FINDINGS_MAX);
    Drover__Finding *finding = pb_new(&drover__finding__descriptor);
    finding->severity = severity;
    pb_string(&finding->code, run->code);
    size_t at = severity == DROVER__FINDING_SEVERITY__FINDING_REFUSAL ? out->refusals++ : out->count;
    memmove(out->findings + at + 1, out->findings + at, (out->count - at) * sizeof *out->findings);
    out->findings[at] = finding;
    out->count++;
    if (out->refusals == 1 && severity == DROVER__FINDING_SEVERITY__FINDING_REFUSAL)
        out->code = run->refusal;
    return finding;
}

static Drover__Finding *refuse(struct run *run)
{
    return find(run, DROVER__FINDING_SEVERITY__FINDING_REFUSAL);
}

static Drover__Finding *warn(struct run *run)
{
    return find(run, DROVER__FINDING_SEVERITY__FINDING_WARNING);
}

static void check_maintenance(struct run *run)
{
    const struct preflight_input *in = run->in;
    if (!in->to.maintenance)
        return;
    Drover__Finding *f = refuse(run);
    say(&f->thing, "host %s", in->to.name);
    say(&f->cause, "is in maintenance and gets no VMs");
    say(&f->next_step, "choose another host, or `drover host set %s --maintenance off`", in->to.name);
}

static void check_accelerator(struct run *run)
{
    const struct preflight_input *in = run->in;
    if (strcmp(in->from.facts->accelerator, in->to.facts->accelerator) == 0)
        return;
    Drover__Finding *f = refuse(run);
    say(&f->thing, "host %s", in->to.name);
    say(&f->cause, "uses %s, and host %s uses %s: the guest's state does not fit", in->to.facts->accelerator,
        in->from.name, in->from.facts->accelerator);
    say(&f->next_step, "choose a host with the same accelerator");
}

const char *preflight_tracker(const Drover__HostFacts *from, const char *asked)
{
    return asked && asked[0] && strcmp(asked, "auto") != 0 ? asked : from->tracker;
}

/* A host that can do one of these can do those after it. */
static size_t tracker_rank(const char *name)
{
    static const char *const ranks[] = {"wp-async", "wp-sync", "qemu"};
    size_t rank = 0;
    while (rank < sizeof ranks / sizeof *ranks && strcmp(name, ranks[rank]) != 0)
        rank++;
    return rank;
}

static void check_tracker(struct run *run)
{
    const struct preflight_input *in = run->in;
    const char *has = in->from.facts->tracker, *asked = preflight_tracker(in->from.facts, in->tracker);
    bool any = has[0] && strcmp(has, "none") != 0;
    if (any && tracker_rank(has) <= tracker_rank(asked))
        return;
    Drover__Finding *f = refuse(run);
    say(&f->thing, "host %s", in->from.name);
    if (any) {
        say(&f->cause, "tracks which pages a guest writes by %s, not by %s", has, asked);
        say(&f->next_step, "leave the choice of a tracker to the hosts (--tracker auto)");
    } else {
        say(&f->cause, "cannot track which pages a guest writes");
        say(&f->next_step, "its drover-hostd says at its start what is missing");
    }
}

/* What QEMU moves by itself has no post-copy. */
static void check_mode(struct run *run)
{
    const struct preflight_input *in = run->in;
    char name[64];
    Drover__MigrationMode mode = in->mode ? in->mode : in->spec->migration_mode;
    bool later = mode == DROVER__MIGRATION_MODE__MIGRATION_MODE_HYBRID ||
                 mode == DROVER__MIGRATION_MODE__MIGRATION_MODE_POSTCOPY;
    if (!later || strcmp(preflight_tracker(in->from.facts, in->tracker), "qemu") != 0)
        return;
    Drover__Finding *f = refuse(run);
    say(&f->thing, "host %s", in->from.name);
    say(&f->cause,
        "leaves the move to QEMU (tracker qemu), which sends all of memory before the switch; mode %s cannot",
        pbjson_enum(&drover__migration_mode__descriptor, (int)mode, name));
    say(&f->next_step, "move it with --mode precopy, or `drover vm set %s --migration-mode precopy`", in->vm);
}

static bool has_machine(const Drover__HostFacts *facts, const char *type)
{
    for (size_t i = 0; i < facts->n_machine_types; i++)
        if (strcmp(facts->machine_types[i], type) == 0)
            return true;
    return false;
}

/* A VM without a type was started by a drover that did not pin it: it runs the newest one of its host. */
static void check_machine(struct run *run)
{
    const struct preflight_input *in = run->in;
    const char *type = in->spec->machine_type;
    struct baseline_host from = {in->from.name, in->from.facts};
    bool told = in->from.facts->n_machine_types && in->to.facts->n_machine_types;
    if (!type[0] && told)
        type = baseline_machine(&from, 1);
    if (!told || !type || !type[0] || has_machine(in->to.facts, type))
        return;
    Drover__Finding *f = refuse(run);
    say(&f->thing, "host %s", in->to.name);
    say(&f->cause, "%s has no machine type %s, which VM %s runs as",
        in->to.facts->hypervisor[0] ? in->to.facts->hypervisor : "its QEMU", type, in->vm);
    say(&f->next_step, "install a QEMU there that has it, or make the VM anew with `--machine` of a type both have");
}

static int version_of(const char *hypervisor)
{
    int major = 0, minor = 0;
    return sscanf(hypervisor, "QEMU %d.%d", &major, &minor) == 2 ? major * 1000 + minor : 0;
}

static void check_qemu(struct run *run)
{
    const struct preflight_input *in = run->in;
    int from = version_of(in->from.facts->hypervisor), to = version_of(in->to.facts->hypervisor);
    if (!from || !to || to >= from)
        return;
    Drover__Finding *f = warn(run);
    say(&f->thing, "host %s", in->to.name);
    say(&f->cause, "runs %s, older than %s on host %s: possible with this machine type, but tried less often",
        in->to.facts->hypervisor, in->from.facts->hypervisor, in->from.name);
    say(&f->next_step, "update QEMU there");
}

static void check_cpu_model(struct run *run)
{
    const struct preflight_input *in = run->in;
    char model[BASELINE_CPU_MAX];
    if (!processor_unknown(in->spec->cpu_model, in->to.facts, model))
        return;
    Drover__Finding *f = refuse(run);
    say(&f->thing, "host %s", in->to.name);
    say(&f->cause, "its QEMU does not know the processor %s of VM %s", model, in->vm);
    say(&f->next_step, "update QEMU there; `drover cluster cpu` shows what all hosts know");
}

static void check_cpu_features(struct run *run)
{
    const struct preflight_input *in = run->in;
    cleanup_buf struct buf missing = {0};
    cleanup_buf struct buf extra = {0};
    size_t lacks = processor_missing(in->spec->cpu_model, in->from.facts, in->to.facts, &missing);
    size_t more = processor_extra(in->spec->cpu_model, in->from.facts, in->to.facts, &extra);
    if (lacks) {
        Drover__Finding *f = refuse(run);
        say(&f->thing, "host %s", in->to.name);
        say(&f->cause, "lacks what VM %s has been given of its processor: %s", in->vm, buf_str(&missing));
        say(&f->next_step, "choose a host that has it; `drover cluster cpu` shows a processor that fits all hosts");
    }
    if (more) {
        Drover__Finding *f = warn(run);
        say(&f->thing, "host %s", in->to.name);
        say(&f->cause, "has more to show of the processor of VM %s than it saw when it booted: %s", in->vm,
            buf_str(&extra));
        say(&f->next_step, "none: the guest uses it from its next boot on");
    }
}

static void check_vcpus(struct run *run)
{
    const struct preflight_input *in = run->in;
    const Drover__HostFacts *facts = in->to.facts;
    if (facts->max_vcpus && in->spec->vcpus > facts->max_vcpus) {
        Drover__Finding *f = refuse(run);
        say(&f->thing, "host %s", in->to.name);
        say(&f->cause, "gives a guest at most %u vCPUs, VM %s has %u", facts->max_vcpus, in->vm, in->spec->vcpus);
        say(&f->next_step, "choose another host");
    } else if (facts->cpus && in->spec->vcpus > facts->cpus) {
        Drover__Finding *f = warn(run);
        say(&f->thing, "host %s", in->to.name);
        say(&f->cause, "has %u processors for the %u vCPUs of VM %s, which will wait for each other", facts->cpus,
            in->spec->vcpus, in->vm);
        say(&f->next_step, "choose a larger host");
    }
}

static void check_page_size(struct run *run)
{
    const struct preflight_input *in = run->in;
    uint32_t from = in->from.facts->page_bytes, to = in->to.facts->page_bytes;
    if (!from || !to || from == to)
        return;
    Drover__Finding *f = refuse(run);
    say(&f->thing, "host %s", in->to.name);
    say(&f->cause, "has pages of %u bytes, host %s of %u", to, in->from.name, from);
    say(&f->next_step, "choose a host whose kernel has the same page size");
}

static void check_memory(struct run *run)
{
    const struct preflight_input *in = run->in;
    uint64_t need = in->spec->memory_bytes, room = in->room_bytes;
    const Drover__MigrateCheckReply *check = in->to.check;
    char a[FORMAT_MAX], b[FORMAT_MAX];
    if (check && (!in->room_known || check->memory_free_bytes < room))
        room = check->memory_free_bytes;
    if ((check || in->room_known) && need > room) {
        Drover__Finding *f = refuse(run);
        say(&f->thing, "host %s", in->to.name);
        say(&f->cause, "has %s of memory left for guests, VM %s needs %s", format_bytes(room, a), in->vm,
            format_bytes(need, b));
        say(&f->next_step, "choose another host, or move something off it first");
    }
}

static void check_ram_files(struct run *run)
{
    const struct preflight_input *in = run->in;
    const Drover__MigrateCheckReply *check = in->to.check;
    char a[FORMAT_MAX], b[FORMAT_MAX];
    if (!check || !check->ram_free_bytes)
        return;
    uint64_t need = in->spec->memory_bytes, free_bytes = check->ram_free_bytes;
    uint64_t sure = free_bytes > check->ram_promised_bytes ? free_bytes - check->ram_promised_bytes : 0;
    if (need > free_bytes) {
        Drover__Finding *f = refuse(run);
        say(&f->thing, "host %s", in->to.name);
        say(&f->cause, "has %s free on the tmpfs of its guests' memory (host.memory_directory), VM %s needs %s",
            format_bytes(free_bytes, a), in->vm, format_bytes(need, b));
        say(&f->next_step, "make that tmpfs larger (mount -o remount,size=...), or choose another host");
    } else if (need > sure) {
        Drover__Finding *f = warn(run);
        say(&f->thing, "host %s", in->to.name);
        say(&f->cause,
            "would have %s too little on the tmpfs of its guests' memory, were all guests to use all they have",
            format_bytes(need - sure, a));
        say(&f->next_step, "make that tmpfs larger (mount -o remount,size=...)");
    }
}

static void check_boot_files(struct run *run)
{
    const struct preflight_input *in = run->in;
    for (size_t i = 0; in->to.check && i < in->to.check->n_boot_files && i < 2; i++) {
        const Drover__CheckedFile *file = in->to.check->boot_files[i];
        if (!file->problem[0])
            continue;
        Drover__Finding *f = refuse(run);
        say(&f->thing, "%.500s", file->path);
        say(&f->cause, "cannot be used on host %s: %.200s", in->to.name, file->problem);
        say(&f->next_step, "put the kernel and initrd where every host reaches them");
    }
}

/* What the target has looked at, as far as it answers what it was asked. */
static size_t disk_count(const struct preflight_input *in)
{
    size_t seen = in->to.check->n_disks;
    return seen < in->spec->n_disks ? seen : in->spec->n_disks;
}

/* What the source sees of the same disk; NULL: not known. By path, because disks that are copied along are not asked
 * about on the target. */
static const Drover__CheckedFile *source_disk(const struct preflight_input *in, const char *path)
{
    const Drover__MigrateCheckReply *check = in->from.check;
    for (size_t i = 0; check && i < check->n_disks; i++)
        if (strcmp(check->disks[i]->path, path) == 0)
            return check->disks[i];
    return NULL;
}

static void check_disk_there(struct run *run)
{
    const struct preflight_input *in = run->in;
    for (size_t i = 0; in->to.check && i < disk_count(in); i++) {
        const Drover__CheckedFile *disk = in->to.check->disks[i], *from = source_disk(in, disk->path);
        if (disk->problem[0]) {
            Drover__Finding *f = refuse(run);
            say(&f->thing, "disk %.500s", disk->path);
            say(&f->cause, "cannot be used on host %s: %.200s", in->to.name, disk->problem);
            say(&f->next_step, "mount the storage there that host %s has it on, with the same rights", in->from.name);
        } else if (from && from->inode && disk->inode && from->inode != disk->inode) {
            Drover__Finding *f = refuse(run);
            say(&f->thing, "disk %.500s", disk->path);
            say(&f->cause, "is another file on host %s than on host %s", in->to.name, in->from.name);
            say(&f->next_step, "mount the same storage on both");
        }
    }
}

static void check_disk_format(struct run *run)
{
    const struct preflight_input *in = run->in;
    for (size_t i = 0; in->to.check && i < disk_count(in); i++) {
        const Drover__CheckedFile *disk = in->to.check->disks[i];
        const char *format = in->spec->disks[i]->format;
        /* A raw disk may hold anything, also what looks like another format: that is the guest's business. */
        if (disk->problem[0] || strcmp(format, "qcow2") != 0 || strcmp(disk->format, "qcow2") == 0)
            continue;
        Drover__Finding *f = refuse(run);
        say(&f->thing, "disk %.500s", disk->path);
        say(&f->cause, "is no qcow2 image as host %s sees it", in->to.name);
        say(&f->next_step, "look whether the right storage is mounted there");
    }
}

static void check_disk_lock(struct run *run)
{
    const struct preflight_input *in = run->in;
    for (size_t i = 0; in->to.check && i < disk_count(in); i++) {
        const Drover__CheckedFile *disk = in->to.check->disks[i], *from = source_disk(in, disk->path);
        if (disk->problem[0] || !from || !from->locked || disk->locked)
            continue;
        Drover__Finding *f = warn(run);
        say(&f->thing, "disk %.500s", disk->path);
        say(&f->cause,
            "is locked on host %s, and host %s does not see it: nothing would keep two hosts from writing it",
            in->from.name, in->to.name);
        say(&f->next_step, "use storage that passes file locks on (NFS 4, a cluster file system)");
    }
}

static void check_network(struct run *run)
{
    const struct preflight_input *in = run->in;
    for (size_t i = 0; in->to.check && i < in->to.check->n_switches && i < in->spec->n_nics; i++) {
        const Drover__CheckedSwitch *at = in->to.check->switches[i];
        if (!at->problem[0])
            continue;
        Drover__Finding *f = refuse(run);
        say(&f->thing, "network %.64s", at->network[0] ? at->network : "default");
        say(&f->cause, "is not on host %s: %.200s", in->to.name, at->problem);
        say(&f->next_step, "make the bridge there, in the same network as on host %s", in->from.name);
    }
}

static void check_mtu(struct run *run)
{
    const struct preflight_input *in = run->in;
    const Drover__MigrateCheckReply *from = in->from.check, *to = in->to.check;
    for (size_t i = 0; from && to && i < from->n_switches && i < to->n_switches && i < in->spec->n_nics; i++) {
        const Drover__CheckedSwitch *a = from->switches[i], *b = to->switches[i];
        if (b->problem[0] || !a->mtu || b->mtu >= a->mtu)
            continue;
        Drover__Finding *f = refuse(run);
        say(&f->thing, "network %.64s", a->network[0] ? a->network : "default");
        say(&f->cause, "carries packets of %u bytes on host %s and of %u on host %s: larger ones would be lost", a->mtu,
            in->from.name, b->mtu, in->to.name);
        say(&f->next_step, "set the MTU of bridge %.16s on host %s to at least %u", b->bridge, in->to.name, a->mtu);
    }
}

/* Under tcg the guest's clocks come from QEMU, whatever the host counts with. */
static void check_clock(struct run *run)
{
    const struct preflight_input *in = run->in;
    const Drover__HostFacts *from = in->from.facts, *to = in->to.facts;
    if (strcmp(to->accelerator, "kvm") != 0 || strcmp(from->accelerator, "kvm") != 0)
        return;
    if (from->clock_source[0] && to->clock_source[0] && strcmp(from->clock_source, to->clock_source) != 0) {
        Drover__Finding *f = refuse(run);
        say(&f->thing, "host %s", in->to.name);
        say(&f->cause, "keeps time by %s, host %s by %s: the guest's clock could step", to->clock_source, in->from.name,
            from->clock_source);
        say(&f->next_step, "find out in the kernel's log why it does not use %s", from->clock_source);
    }
    uint64_t high = from->tsc_khz > to->tsc_khz ? from->tsc_khz : to->tsc_khz;
    uint64_t low = from->tsc_khz + to->tsc_khz - high;
    if (low && !to->tsc_scaling && (high - low) > low / (1000000 / TSC_TOLERANCE_PPM)) {
        Drover__Finding *f = refuse(run);
        say(&f->thing, "host %s", in->to.name);
        say(&f->cause,
            "has a time stamp counter of %" PRIu64 " kHz, host %s of %" PRIu64
            ", and cannot scale it: the guest's clock would run wrong",
            to->tsc_khz, in->from.name, from->tsc_khz);
        say(&f->next_step, "choose a host with the same clock rate, or one that scales (KVM_CAP_TSC_CONTROL)");
    }
}

static const struct {
    const char *code;
    void (*run)(struct run *run);
    enum err_code refusal;
    bool looks; /* goes by what a host saw when it looked; else by facts alone */
} checks[] = {
    {"maintenance", check_maintenance, ERR_WRONG_STATE, false},
    {"accelerator", check_accelerator, ERR_UNSUPPORTED, false},
    {"tracker", check_tracker, ERR_UNSUPPORTED, false},
    {"mode", check_mode, ERR_UNSUPPORTED, false},
    {"machine-type", check_machine, ERR_UNSUPPORTED, false},
    {"qemu-version", check_qemu, ERR_UNSUPPORTED, false},
    {"cpu-model", check_cpu_model, ERR_UNSUPPORTED, false},
    {"cpu-features", check_cpu_features, ERR_UNSUPPORTED, false},
    {"vcpus", check_vcpus, ERR_UNSUPPORTED, false},
    {"page-size", check_page_size, ERR_UNSUPPORTED, false},
    {"clock-source", check_clock, ERR_UNSUPPORTED, false},
    {"memory", check_memory, ERR_CAPACITY, true},
    {"ram-files", check_ram_files, ERR_CAPACITY, true},
    {"boot-files", check_boot_files, ERR_NOT_FOUND, true},
    {"disk", check_disk_there, ERR_NOT_FOUND, true},
    {"disk-format", check_disk_format, ERR_UNSUPPORTED, true},
    {"disk-lock", check_disk_lock, ERR_UNSUPPORTED, true},
    {"network", check_network, ERR_NOT_FOUND, true},
    {"mtu", check_mtu, ERR_UNSUPPORTED, true},
};

static void run_checks(const struct preflight_input *input, bool looking, struct preflight *out)
{
    *out = (struct preflight){.code = ERR_NONE};
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        struct run run = {input, checks[i].code, checks[i].refusal, out};
        if (looking || !checks[i].looks)
            checks[i].run(&run);
    }
}

void preflight_run(const struct preflight_input *input, struct preflight *out)
{
    run_checks(input, true, out);
}

void preflight_clear(struct preflight *preflight)
{
    for (size_t i = 0; i < preflight->count; i++)
        pb_free(preflight->findings[i]);
    *preflight = (struct preflight){0};
}

int preflight_error(const struct preflight *preflight, struct err *err)
{
    cleanup_buf struct buf text = {0};
    ENSURE(preflight->refusals > 0);
    size_t told = 0;
    for (; told < preflight->refusals; told++) {
        const Drover__Finding *f = preflight->findings[told];
        size_t len = strlen(f->thing) + strlen(f->cause) + strlen(f->next_step) + 8;
        if (told && text.len + len > ERR_MESSAGE_MAX - 48)
            break;
        buf_printf(&text, "%s%s %s; %s", told ? ". " : "", f->thing, f->cause, f->next_step);
    }
    if (told < preflight->refusals)
        buf_printf(&text, ". And %zu more (`drover job show`)", preflight->refusals - told);
    return err_set(err, preflight->code, "%s", buf_str(&text));
}

bool preflight_possible(const struct preflight_input *input)
{
    struct preflight found;
    run_checks(input, false, &found);
    bool possible = found.refusals == 0;
    preflight_clear(&found);
    return possible;
}
