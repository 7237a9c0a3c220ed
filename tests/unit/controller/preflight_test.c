/* Every check of the preflight: what it refuses, what it warns of, and that it finds nothing where nothing is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "controller/pb.h"
#include "controller/placement/preflight.h"
#include "tests/unit/controller/preflight_world.h"

/* --- the rows: each is one change of a world in which nothing is to be found --- */

static void maintenance(struct world *w)
{
    w->in.to.maintenance = true;
}
static void shutting_down(struct world *w)
{
    w->in.to.shutting_down = true;
}
static void accelerator(struct world *w)
{
    pb_string(&w->to->accelerator, "tcg");
}
static void tracker(struct world *w)
{
    pb_string(&w->from->tracker, "none");
}
static void tracker_asked_for(struct world *w)
{
    w->in.tracker = "wp-sync"; /* a host that has the best has the others, too */
}
static void tracker_beyond_the_host(struct world *w)
{
    pb_string(&w->from->tracker, "wp-sync");
    w->in.tracker = "wp-async";
}
static void mode_beyond_qemu(struct world *w)
{
    w->in.tracker = "qemu";
    w->spec->migration_mode = DROVER__MIGRATION_MODE__MIGRATION_MODE_HYBRID;
}
static void mode_for_this_move(struct world *w)
{
    mode_beyond_qemu(w);
    w->in.mode = DROVER__MIGRATION_MODE__MIGRATION_MODE_PRECOPY;
}
static void storage_beyond_qemu(struct world *w)
{
    pb_string(&w->from->tracker, "qemu");
    w->in.with_storage = true;
}
static void tracker_of_the_target(struct world *w)
{
    pb_string(&w->to->tracker, "none"); /* it is the source's that is needed */
}
static void machine_gone(struct world *w)
{
    pb_string(&w->spec->machine_type, "pc-q35-10.0");
    free(w->to->machine_types[0]);
    w->to->machine_types[0] = w->to->machine_types[--w->to->n_machine_types];
}
static void machine_unpinned(struct world *w)
{
    machine_gone(w);
    pb_string(&w->spec->machine_type, "");
}
static void machine_older_is_enough(struct world *w)
{
    machine_gone(w);
    pb_string(&w->spec->machine_type, "pc-q35-7.2");
}
static void qemu_older(struct world *w)
{
    pb_string(&w->to->hypervisor, "QEMU 7.2.11");
}
static void qemu_newer(struct world *w)
{
    pb_string(&w->from->hypervisor, "QEMU 7.2.11");
}
static void model_unknown(struct world *w)
{
    pb_string(&w->to->cpu_models[0]->name, "Nehalem-v1");
}
static void model_lacks(struct world *w)
{
    world_word_add(&w->to->cpu_models[0]->missing, &w->to->cpu_models[0]->n_missing, "hle");
}
static void model_lacks_what_is_off(struct world *w)
{
    model_lacks(w);
    pb_string(&w->spec->cpu_model, "Haswell-v1,-hle");
}
static void feature_on_is_missing(struct world *w)
{
    pb_string(&w->spec->cpu_model, "Haswell-v1,+pcid");
}
static void host_lacks(struct world *w)
{
    pb_string(&w->spec->cpu_model, "host");
    world_feature_add(w->from, "avx512f");
}
static void host_lacks_by_default(struct world *w)
{
    pb_string(&w->spec->cpu_model, "");
    world_feature_add(w->from, "avx512f");
}
static void host_has_more(struct world *w)
{
    pb_string(&w->spec->cpu_model, "");
    world_feature_add(w->to, "avx512f");
}
static void too_many_vcpus(struct world *w)
{
    w->spec->vcpus = 300;
}
static void more_vcpus_than_processors(struct world *w)
{
    w->spec->vcpus = 9;
}
static void page_size(struct world *w)
{
    w->to->page_bytes = 16384;
}
static void clock_source(struct world *w)
{
    pb_string(&w->to->clock_source, "hpet");
}
static void clock_source_emulated(struct world *w)
{
    clock_source(w);
    pb_string(&w->from->accelerator, "tcg");
    pb_string(&w->to->accelerator, "tcg");
}
static void clock_rate(struct world *w)
{
    w->to->tsc_khz = 2001000;
}
static void clock_rate_within_tolerance(struct world *w)
{
    w->to->tsc_khz = 2000400;
}
static void clock_rate_scaled(struct world *w)
{
    clock_rate(w);
    w->to->tsc_scaling = true;
}
static void room_promised(struct world *w)
{
    w->in.room_bytes = GIB / 2;
}
static void room_on_the_host(struct world *w)
{
    w->to_sees->memory_free_bytes = GIB / 2;
}
static void tmpfs_full(struct world *w)
{
    w->to_sees->ram_free_bytes = GIB - 1;
}
static void tmpfs_promised(struct world *w)
{
    w->to_sees->ram_promised_bytes = 5 * GIB + 1;
}
static void kernel_missing(struct world *w)
{
    pb_string(&w->to_sees->boot_files[0]->problem, "No such file or directory");
}
static void disk_missing(struct world *w)
{
    pb_string(&w->to_sees->disks[0]->problem, "No such file or directory");
}
static void disk_moves_along(struct world *w)
{
    PB_ADD(w->from_sees, disks,
        pb_copy(w->from_sees->disks[0])); /* the second one stays, and is all that is asked about */
    pb_string(&w->from_sees->disks[0]->path, "/srv/moves.qcow2");
    w->from_sees->disks[0]->inode = 99;
}
static void disk_other_file(struct world *w)
{
    w->to_sees->disks[0]->inode = 13;
}
static void disk_other_format(struct world *w)
{
    pb_string(&w->to_sees->disks[0]->format, "raw");
}
static void disk_raw_with_any_content(struct world *w)
{
    pb_string(&w->spec->disks[0]->format, "raw");
}
static void disk_made_elsewhere(struct world *w)
{
    w->from_sees->disks[0]->born_ms = 1700000000123;
    w->to_sees->disks[0]->born_ms = 1700000000124;
    w->to_sees->disks[0]->locked = false; /* follows from it, and is not told besides */
}
static void disk_of_known_age_on_one(struct world *w)
{
    w->from_sees->disks[0]->born_ms = 1700000000123;
}
static void disk_of_another_size(struct world *w)
{
    w->from_sees->disks[0]->bytes = 1 << 30;
    w->to_sees->disks[0]->bytes = 1 << 29;
}
/* Two hosts' views of a block device. */
static void device(struct world *w, const char *from, const char *to)
{
    w->from_sees->disks[0]->inode = w->to_sees->disks[0]->inode = 0;
    w->to_sees->disks[0]->locked = false;
    pb_string(&w->from_sees->disks[0]->device, from);
    pb_string(&w->to_sees->disks[0]->device, to);
}
static void disk_on_another_device(struct world *w)
{
    device(w, "wwid:naa.1", "wwid:naa.2");
}
static void disk_on_the_same_device(struct world *w)
{
    device(w, "wwid:naa.1", "wwid:naa.1");
}
static void disk_on_a_device_named_otherwise(struct world *w)
{
    device(w, "wwid:naa.1", "dm/uuid:mpath-1");
}
static void disk_lock_not_seen(struct world *w)
{
    w->to_sees->disks[0]->locked = false;
}
static void network_missing(struct world *w)
{
    pb_string(&w->to_sees->switches[0]->problem, "network interface drover0: Object not found");
}
static void mtu_smaller(struct world *w)
{
    w->to_sees->switches[0]->mtu = 1400;
}
static void mtu_larger(struct world *w)
{
    w->to_sees->switches[0]->mtu = 9000;
}
static void nobody_has_looked(struct world *w)
{
    w->in.from.check = w->in.to.check = NULL;
    w->in.room_known = false;
}
static void an_older_host(struct world *w)
{
    pb_free(w->to);
    w->to = pb_new(&drover__host_facts__descriptor);
    pb_string(&w->to->accelerator, "kvm");
    w->in.to = (struct preflight_host){"h2", w->to, NULL, false, false};
}

#define NOTHING 0, NULL, ERR_NONE
static const struct {
    void (*change)(struct world *w);
    int kind; /* 0: nothing, 1: warning, 2: refusal */
    const char *code;
    enum err_code refusal;
    const char *says; /* part of thing, cause or next step */
} rows[] = {
    {maintenance, 2, "maintenance", ERR_WRONG_STATE, "drover host set h2 --maintenance off"},
    {shutting_down, 2, "shutdown", ERR_WRONG_STATE, "host h2"},
    {accelerator, 2, "accelerator", ERR_UNSUPPORTED, "uses tcg, and host h1 uses kvm"},
    {tracker, 2, "tracker", ERR_UNSUPPORTED, "host h1"},
    {tracker_asked_for, NOTHING, NULL},
    {tracker_beyond_the_host, 2, "tracker", ERR_UNSUPPORTED, "host h1"},
    {tracker_of_the_target, NOTHING, NULL},
    {mode_beyond_qemu, 2, "mode", ERR_UNSUPPORTED, "drover vm set web --migration-mode precopy"},
    {mode_for_this_move, NOTHING, NULL},
    {storage_beyond_qemu, 2, "storage", ERR_UNSUPPORTED, "can take no disks along"},
    {machine_gone, 2, "machine-type", ERR_UNSUPPORTED, "no machine type pc-q35-10.0"},
    {machine_unpinned, 2, "machine-type", ERR_UNSUPPORTED, "no machine type pc-q35-10.0"},
    {machine_older_is_enough, NOTHING, NULL},
    {qemu_older, 1, "qemu-version", ERR_NONE, "QEMU 7.2.11, older than QEMU 10.0.2"},
    {qemu_newer, NOTHING, NULL},
    {model_unknown, 2, "cpu-model", ERR_UNSUPPORTED, "Haswell-v1"},
    {model_lacks, 2, "cpu-features", ERR_UNSUPPORTED, "hle"},
    {model_lacks_what_is_off, NOTHING, NULL},
    {feature_on_is_missing, 2, "cpu-features", ERR_UNSUPPORTED, "pcid"},
    {host_lacks, 2, "cpu-features", ERR_UNSUPPORTED, "avx512f"},
    {host_lacks_by_default, 2, "cpu-features", ERR_UNSUPPORTED, "avx512f"},
    {host_has_more, 1, "cpu-features", ERR_NONE, "avx512f"},
    {too_many_vcpus, 2, "vcpus", ERR_UNSUPPORTED, "at most 288 vCPUs"},
    {more_vcpus_than_processors, 1, "vcpus", ERR_NONE, "8 processors for the 9 vCPUs"},
    {page_size, 2, "page-size", ERR_UNSUPPORTED, "pages of 16384 bytes, host h1 of 4096"},
    {clock_source, 2, "clock-source", ERR_UNSUPPORTED, "keeps time by hpet, host h1 by tsc"},
    {clock_source_emulated, NOTHING, NULL},
    {clock_rate, 2, "clock-source", ERR_UNSUPPORTED, "2001000 kHz"},
    {clock_rate_within_tolerance, NOTHING, NULL},
    {clock_rate_scaled, NOTHING, NULL},
    {room_promised, 2, "memory", ERR_CAPACITY, "512 MiB"},
    {room_on_the_host, 2, "memory", ERR_CAPACITY, "512 MiB"},
    {tmpfs_full, 2, "ram-files", ERR_CAPACITY, "host.memory_directory"},
    {tmpfs_promised, 2, "ram-files", ERR_CAPACITY, "that no guest was promised"},
    {kernel_missing, 2, "boot-files", ERR_NOT_FOUND, "/srv/vmlinux"},
    {disk_missing, 2, "disk", ERR_NOT_FOUND, "No such file"},
    {disk_moves_along, NOTHING, NULL},
    {disk_other_file, 2, "disk", ERR_NOT_FOUND, "another file on host h2"},
    {disk_made_elsewhere, 2, "disk", ERR_NOT_FOUND, "made at another time"},
    {disk_of_known_age_on_one, NOTHING, NULL},
    {disk_of_another_size, 2, "disk", ERR_NOT_FOUND, "of another size"},
    {disk_on_another_device, 2, "disk", ERR_NOT_FOUND, "on another device"},
    {disk_on_the_same_device, NOTHING, NULL},
    {disk_on_a_device_named_otherwise, 1, "disk-lock", ERR_NONE, "may be another device"},
    {disk_other_format, 2, "disk-format", ERR_UNSUPPORTED, "no qcow2 image"},
    {disk_raw_with_any_content, NOTHING, NULL},
    {disk_lock_not_seen, 2, "disk-lock", ERR_UNSUPPORTED, "--with-storage"},
    {network_missing, 2, "network", ERR_NOT_FOUND, "is not on host h2"},
    {mtu_smaller, 2, "mtu", ERR_UNSUPPORTED, "to at least 1500"},
    {mtu_larger, NOTHING, NULL},
    {nobody_has_looked, NOTHING, NULL},
    {an_older_host, NOTHING, NULL},
};

static void every_row(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct preflight found;
        struct err err;
        struct world w = world();
        rows[i].change(&w);
        preflight_run(&w.in, &found);
        if (found.count != (rows[i].kind != 0) || found.refusals != (rows[i].kind == 2) ||
            (found.count && strcmp(found.findings[0]->code, rows[i].code) != 0) || found.code != rows[i].refusal)
            fail_msg("row %zu (%s): %zu found, %zu refused, first %s: %s", i, rows[i].code ? rows[i].code : "nothing",
                found.count, found.refusals, found.count ? found.findings[0]->code : "-",
                found.count ? found.findings[0]->cause : "-");
        if (found.count) {
            char all[2048];
            const Drover__Finding *f = found.findings[0];
            assert_true(f->thing[0] && f->cause[0] && f->next_step[0]);
            snprintf(all, sizeof all, "%s %s; %s", f->thing, f->cause, f->next_step);
            if (!strstr(all, rows[i].says))
                fail_msg("row %zu (%s): '%s' is not in '%s'", i, rows[i].code, rows[i].says, all);
        }
        if (found.refusals) {
            assert_int_equal(preflight_error(&found, &err), -1);
            assert_int_equal(err.code, rows[i].refusal);
        }
        preflight_clear(&found);
        world_free(&w);
    }
}

static void nothing_to_find(void **unused)
{
    (void)unused;
    struct world w = world();
    struct preflight found;
    preflight_run(&w.in, &found);
    assert_int_equal(found.count, 0);
    assert_true(preflight_possible(&w.in));
    world_free(&w);
}

/* All at once, refusals before warnings, each in the order of the table. */
static void everything_is_told_at_once(void **unused)
{
    (void)unused;
    struct world w = world();
    struct preflight found;
    struct err err;
    mtu_smaller(&w);
    qemu_older(&w);
    page_size(&w);
    room_on_the_host(&w);
    disk_lock_not_seen(&w);
    preflight_run(&w.in, &found);
    static const char *const order[] = {"page-size", "memory", "disk-lock", "mtu", "qemu-version"};
    assert_int_equal(found.count, 5);
    assert_int_equal(found.refusals, 4);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(found.findings[i]->code, order[i]);
    assert_int_equal(preflight_error(&found, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "16384"));
    assert_non_null(strstr(err.message, "512 MiB"));
    preflight_clear(&found);
    world_free(&w);
}

/* Sixteen disks and eight cards with everything wrong: there is room for it all, and the message says what is left out.
 */
static void the_most_there_can_be(void **unused)
{
    (void)unused;
    struct world w = world();
    struct preflight found;
    struct err err;
    for (int i = 1; i < 20; i++) {
        PB_ADD(w.spec, disks, pb_copy(w.spec->disks[0]));
        PB_ADD(w.spec, nics, pb_copy(w.spec->nics[0]));
    }
    w.spec->n_disks = 16;
    w.spec->n_nics = 8;
    for (int i = 1; i < 40; i++) { /* more than was asked about */
        PB_ADD(w.from_sees, disks, pb_copy(w.from_sees->disks[0]));
        PB_ADD(w.to_sees, disks, pb_copy(w.to_sees->disks[0]));
        PB_ADD(w.to_sees, boot_files, pb_copy(w.to_sees->boot_files[0]));
        PB_ADD(w.to_sees, switches, pb_copy(w.to_sees->switches[0]));
    }
    for (int i = 0; i < 40; i++) {
        w.to_sees->disks[i]->inode = 13;
        w.to_sees->disks[i]->locked = false;
        pb_string(&w.to_sees->disks[i]->format, "raw");
        pb_string(&w.to_sees->boot_files[i]->problem, "No such file or directory");
        pb_string(&w.to_sees->switches[i]->problem, "no such bridge");
    }
    preflight_run(&w.in, &found);
    assert_int_equal(found.count, 2 * 16 + 8 + 2);
    assert_int_equal(preflight_error(&found, &err), -1);
    assert_non_null(strstr(err.message, "more (`drover job show`)"));
    preflight_clear(&found);
    w.spec->n_disks = 20;
    w.spec->n_nics = 20;
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_to_find),
        cmocka_unit_test(every_row),
        cmocka_unit_test(everything_is_told_at_once),
        cmocka_unit_test(the_most_there_can_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
