#include "controller/placement/preflight.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/ensure.h"
#include "controller/pb.h"
#include "controller/placement/baseline.h"
#include "controller/placement/preflight_check.h"
#include "controller/placement/processor.h"
#include "proto/pbjson.h"
#include "proto/trackers.h"

#define TSC_TOLERANCE_PPM 250 /* what KVM lets pass without scaling */

void preflight_say(char **field, const char *fmt, ...)
{
    char once[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(once, sizeof once, fmt, args);
    va_end(args);
    pb_string(field, once);
}

/* Room is for more than all checks can find, because each looks at no more disks and cards than a VM may have. */
static Drover__Finding *find(struct preflight_run *run, Drover__FindingSeverity severity)
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

Drover__Finding *preflight_refuse(struct preflight_run *run)
{
    return find(run, DROVER__FINDING_SEVERITY__FINDING_REFUSAL);
}

Drover__Finding *preflight_warn(struct preflight_run *run)
{
    return find(run, DROVER__FINDING_SEVERITY__FINDING_WARNING);
}

static void check_maintenance(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    if (!in->to.maintenance)
        return;
    Drover__Finding *f = preflight_refuse(run);
    preflight_say(&f->thing, "host %s", in->to.name);
    preflight_say(&f->cause, "is in maintenance and gets no VMs");
    preflight_say(&f->next_step, "choose another host, or `drover host set %s --maintenance off`", in->to.name);
}

static void check_shutdown(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    if (!in->to.shutting_down)
        return;
    Drover__Finding *f = preflight_refuse(run);
    preflight_say(&f->thing, "host %s", in->to.name);
    preflight_say(&f->cause, "is being shut down and takes no guests until it is up again");
    preflight_say(&f->next_step, "choose another host");
}

static void check_accelerator(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    if (strcmp(in->from.facts->accelerator, in->to.facts->accelerator) == 0)
        return;
    Drover__Finding *f = preflight_refuse(run);
    preflight_say(&f->thing, "host %s", in->to.name);
    preflight_say(&f->cause, "uses %s, and host %s uses %s: the guest's state does not fit", in->to.facts->accelerator,
        in->from.name, in->from.facts->accelerator);
    preflight_say(&f->next_step, "choose a host with the same accelerator");
}

void preflight_options(struct preflight_input *input, const Drover__MigrationOptions *options)
{
    input->tracker = options ? options->tracker : NULL;
    input->mode = options ? options->mode : DROVER__MIGRATION_MODE__MIGRATION_MODE_DEFAULT;
    input->with_storage = options && options->with_storage;
}

const char *preflight_tracker(const Drover__HostFacts *from, const char *asked)
{
    return asked && !trackers_any(asked) ? asked : from->tracker;
}

static void check_tracker(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    const char *has = in->from.facts->tracker, *asked = preflight_tracker(in->from.facts, in->tracker);
    bool any = has[0] && strcmp(has, "none") != 0;
    if (any && trackers_had(has, asked))
        return;
    Drover__Finding *f = preflight_refuse(run);
    preflight_say(&f->thing, "host %s", in->from.name);
    if (any) {
        preflight_say(&f->cause, "tracks which pages a guest writes by %s, not by %s", has, asked);
        preflight_say(&f->next_step, "leave the choice of a tracker to the hosts (--tracker auto)");
    } else {
        preflight_say(&f->cause, "cannot track which pages a guest writes");
        preflight_say(&f->next_step, "its drover-hostd says at its start what is missing");
    }
}

/* What QEMU moves by itself has no post-copy. */
static void check_mode(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    char name[64];
    Drover__MigrationMode mode = in->mode ? in->mode : in->spec->migration_mode;
    bool later = mode == DROVER__MIGRATION_MODE__MIGRATION_MODE_HYBRID ||
                 mode == DROVER__MIGRATION_MODE__MIGRATION_MODE_POSTCOPY;
    if (!later || strcmp(preflight_tracker(in->from.facts, in->tracker), "qemu") != 0)
        return;
    Drover__Finding *f = preflight_refuse(run);
    preflight_say(&f->thing, "host %s", in->from.name);
    preflight_say(&f->cause,
        "leaves the move to QEMU (tracker qemu), which sends all of memory before the switch; mode %s cannot",
        pbjson_enum(&drover__migration_mode__descriptor, (int)mode, name));
    preflight_say(&f->next_step, "move it with --mode precopy, or `drover vm set %s --migration-mode precopy`", in->vm);
}

/* Nor does it take disks along. */
static void check_storage(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    if (!in->with_storage || strcmp(preflight_tracker(in->from.facts, in->tracker), "qemu") != 0)
        return;
    Drover__Finding *f = preflight_refuse(run);
    preflight_say(&f->thing, "host %s", in->from.name);
    preflight_say(&f->cause, "leaves the move to QEMU (tracker qemu), which can take no disks along");
    preflight_say(&f->next_step,
        "move the disks to storage that both hosts reach (`drover vm move-storage`), then VM %s without", in->vm);
}

static bool has_machine(const Drover__HostFacts *facts, const char *type)
{
    for (size_t i = 0; i < facts->n_machine_types; i++)
        if (strcmp(facts->machine_types[i], type) == 0)
            return true;
    return false;
}

/* A VM without a type was started by a drover that did not pin it: it runs the newest one of its host. */
static void check_machine(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    const char *type = in->spec->machine_type;
    struct baseline_host from = {in->from.name, in->from.facts};
    bool told = in->from.facts->n_machine_types && in->to.facts->n_machine_types;
    if (!type[0] && told)
        type = baseline_machine(&from, 1);
    if (!told || !type || !type[0] || has_machine(in->to.facts, type))
        return;
    Drover__Finding *f = preflight_refuse(run);
    preflight_say(&f->thing, "host %s", in->to.name);
    preflight_say(&f->cause, "%s has no machine type %s, which VM %s runs as",
        in->to.facts->hypervisor[0] ? in->to.facts->hypervisor : "its QEMU", type, in->vm);
    preflight_say(
        &f->next_step, "install a QEMU there that has it, or make the VM anew with `--machine` of a type both have");
}

static int version_of(const char *hypervisor)
{
    int major = 0, minor = 0;
    return sscanf(hypervisor, "QEMU %d.%d", &major, &minor) == 2 ? major * 1000 + minor : 0;
}

static void check_qemu(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    int from = version_of(in->from.facts->hypervisor), to = version_of(in->to.facts->hypervisor);
    if (!from || !to || to >= from)
        return;
    Drover__Finding *f = preflight_warn(run);
    preflight_say(&f->thing, "host %s", in->to.name);
    preflight_say(&f->cause, "runs %s, older than %s on host %s: possible with this machine type, but tried less often",
        in->to.facts->hypervisor, in->from.facts->hypervisor, in->from.name);
    preflight_say(&f->next_step, "update QEMU there");
}

static void check_cpu_model(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    char model[BASELINE_CPU_MAX];
    if (!processor_unknown(in->spec->cpu_model, in->to.facts, model))
        return;
    Drover__Finding *f = preflight_refuse(run);
    preflight_say(&f->thing, "host %s", in->to.name);
    preflight_say(&f->cause, "its QEMU does not know the processor %s of VM %s", model, in->vm);
    preflight_say(&f->next_step, "update QEMU there; `drover cluster cpu` shows what all hosts know");
}

static void check_cpu_features(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    cleanup_buf struct buf missing = {0};
    cleanup_buf struct buf extra = {0};
    size_t lacks = processor_missing(in->spec->cpu_model, in->from.facts, in->to.facts, &missing);
    size_t more = processor_extra(in->spec->cpu_model, in->from.facts, in->to.facts, &extra);
    if (lacks) {
        Drover__Finding *f = preflight_refuse(run);
        preflight_say(&f->thing, "host %s", in->to.name);
        preflight_say(&f->cause, "lacks what VM %s has been given of its processor: %s", in->vm, buf_str(&missing));
        preflight_say(
            &f->next_step, "choose a host that has it; `drover cluster cpu` shows a processor that fits all hosts");
    }
    if (more) {
        Drover__Finding *f = preflight_warn(run);
        preflight_say(&f->thing, "host %s", in->to.name);
        preflight_say(&f->cause, "has more to show of the processor of VM %s than it saw when it booted: %s", in->vm,
            buf_str(&extra));
        preflight_say(&f->next_step, "none: the guest uses it from its next boot on");
    }
}

static void check_vcpus(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    const Drover__HostFacts *facts = in->to.facts;
    if (facts->max_vcpus && in->spec->vcpus > facts->max_vcpus) {
        Drover__Finding *f = preflight_refuse(run);
        preflight_say(&f->thing, "host %s", in->to.name);
        preflight_say(
            &f->cause, "gives a guest at most %u vCPUs, VM %s has %u", facts->max_vcpus, in->vm, in->spec->vcpus);
        preflight_say(&f->next_step, "choose another host");
    } else if (facts->cpus && in->spec->vcpus > facts->cpus) {
        Drover__Finding *f = preflight_warn(run);
        preflight_say(&f->thing, "host %s", in->to.name);
        preflight_say(&f->cause, "has %u processors for the %u vCPUs of VM %s, which will wait for each other",
            facts->cpus, in->spec->vcpus, in->vm);
        preflight_say(&f->next_step, "choose a larger host");
    }
}

static void check_page_size(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    uint32_t from = in->from.facts->page_bytes, to = in->to.facts->page_bytes;
    if (!from || !to || from == to)
        return;
    Drover__Finding *f = preflight_refuse(run);
    preflight_say(&f->thing, "host %s", in->to.name);
    preflight_say(&f->cause, "has pages of %u bytes, host %s of %u", to, in->from.name, from);
    preflight_say(&f->next_step, "choose a host whose kernel has the same page size");
}

/* Under tcg the guest's clocks come from QEMU, whatever the host counts with. */
static void check_clock(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    const Drover__HostFacts *from = in->from.facts, *to = in->to.facts;
    if (strcmp(to->accelerator, "kvm") != 0 || strcmp(from->accelerator, "kvm") != 0)
        return;
    if (from->clock_source[0] && to->clock_source[0] && strcmp(from->clock_source, to->clock_source) != 0) {
        Drover__Finding *f = preflight_refuse(run);
        preflight_say(&f->thing, "host %s", in->to.name);
        preflight_say(&f->cause, "keeps time by %s, host %s by %s: the guest's clock could step", to->clock_source,
            in->from.name, from->clock_source);
        preflight_say(&f->next_step, "find out in the kernel's log why it does not use %s", from->clock_source);
    }
    uint64_t high = from->tsc_khz > to->tsc_khz ? from->tsc_khz : to->tsc_khz;
    uint64_t low = from->tsc_khz + to->tsc_khz - high;
    if (low && !to->tsc_scaling && (high - low) > low / (1000000 / TSC_TOLERANCE_PPM)) {
        Drover__Finding *f = preflight_refuse(run);
        preflight_say(&f->thing, "host %s", in->to.name);
        preflight_say(&f->cause,
            "has a time stamp counter of %" PRIu64 " kHz, host %s of %" PRIu64
            ", and cannot scale it: the guest's clock would run wrong",
            to->tsc_khz, in->from.name, from->tsc_khz);
        preflight_say(
            &f->next_step, "choose a host with the same clock rate, or one that scales (KVM_CAP_TSC_CONTROL)");
    }
}

static const struct preflight_check checks[] = {
    {"maintenance", check_maintenance, ERR_WRONG_STATE},
    {"shutdown", check_shutdown, ERR_WRONG_STATE},
    {"accelerator", check_accelerator, ERR_UNSUPPORTED},
    {"tracker", check_tracker, ERR_UNSUPPORTED},
    {"mode", check_mode, ERR_UNSUPPORTED},
    {"storage", check_storage, ERR_UNSUPPORTED},
    {"machine-type", check_machine, ERR_UNSUPPORTED},
    {"qemu-version", check_qemu, ERR_UNSUPPORTED},
    {"cpu-model", check_cpu_model, ERR_UNSUPPORTED},
    {"cpu-features", check_cpu_features, ERR_UNSUPPORTED},
    {"vcpus", check_vcpus, ERR_UNSUPPORTED},
    {"page-size", check_page_size, ERR_UNSUPPORTED},
    {"clock-source", check_clock, ERR_UNSUPPORTED},
    {0},
};

static void run_all(const struct preflight_check *table, const struct preflight_input *input, struct preflight *out)
{
    for (const struct preflight_check *check = table; check->run; check++)
        check->run(&(struct preflight_run){input, check->code, check->refusal, out});
}

void preflight_run(const struct preflight_input *input, struct preflight *out)
{
    *out = (struct preflight){.code = ERR_NONE};
    run_all(checks, input, out);
    run_all(preflight_looks, input, out);
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
    struct preflight found = {.code = ERR_NONE};
    run_all(checks, input, &found);
    bool possible = found.refusals == 0;
    preflight_clear(&found);
    return possible;
}
