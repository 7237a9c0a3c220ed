#include "hostd/hypervisor/qemu/command.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/ensure.h"
#include "hostd/partition/spec.h"

#define COMMAND_ARGS_MAX 256

/* PCI addresses on the root bus of q35: 0 is the host bridge, 0x1f the chip set. They are part of the guest's device
 * state and must never change for a VM that exists. There are few devices, because QEMU saves and loads 45 KB for
 * each virtio device while the guest stands still. Randomness the guest has from its processor. */
#define PCI_NIC     0x03
#define PCI_DISK    (PCI_NIC + SPEC_NICS_MAX)
#define PCI_BALLOON (PCI_DISK + SPEC_DISKS_MAX)
_Static_assert(PCI_BALLOON < 0x1f, "devices must fit the root bus");

struct command {
    char **argv;
    size_t count;
};

__attribute__((format(printf, 2, 3))) static void add(struct command *c, const char *fmt, ...)
{
    char *text;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    ENSURE(n >= 0 && c->count < COMMAND_ARGS_MAX - 1);
    c->argv[c->count++] = text;
}

/* QEMU's option strings end a value at a comma, unless it is doubled. Take: free(). */
static char *quote(const char *value)
{
    struct buf out = {0};
    for (const char *p = value; *p; p++)
        buf_append(&out, *p == ',' ? ",," : p, *p == ',' ? 2 : 1);
    buf_append(&out, "", 1);
    return (char *)out.data;
}

static void add_machine(struct command *c, const struct command_config *o)
{
    const Drover__VmSpec *spec = o->spec;
    bool kvm = o->accelerator[0] == 'k';
    cleanup_free char *ram = quote(o->ram_path);
    add(c, "-name");
    add(c, "guest=%s,debug-threads=on", spec->name);
    add(c, "-uuid");
    add(c, "%s", o->vm_id);
    add(c, "-machine");
    /* The description of the device state is for debugging streams; it makes the state a third larger. */
    add(c, "%s,hpet=off,suppress-vmdesc=on,memory-backend=ram", spec->machine_type[0] ? spec->machine_type : "q35");
    add(c, "-accel");
    if (kvm)
        add(c, "kvm");
    else
        add(c, "tcg,thread=multi,tb-size=%" PRIu64, o->tcg_cache_mb);
    add(c, "-cpu");
    add(c, "%s", spec->cpu_model[0] ? spec->cpu_model : kvm ? "host" : "max");
    add(c, "-smp");
    add(c, "%" PRIu32, spec->vcpus);
    add(c, "-m");
    add(c, "size=%" PRIu64 "B", spec->memory_bytes);
    add(c, "-object");
    add(c, "memory-backend-file,id=ram,size=%" PRIu64 ",mem-path=%s,share=on,prealloc=off", spec->memory_bytes, ram);
    if (!spec->kernel[0])
        return;
    add(c, "-kernel");
    add(c, "%s", spec->kernel);
    if (spec->initrd[0]) {
        add(c, "-initrd");
        add(c, "%s", spec->initrd);
    }
    add(c, "-append");
    add(c, "%s", spec->cmdline);
}

static void add_channels(struct command *c, const struct command_config *o)
{
    cleanup_free char *log = quote(o->serial_log);
    add(c, "-chardev");
    add(c, "socket,id=qmp,fd=%d,server=on,wait=off", o->qmp_fd);
    add(c, "-mon");
    add(c, "chardev=qmp,mode=control");
    add(c, "-chardev");
    add(c, "socket,id=qmp-engine,fd=%d,server=on,wait=off", o->qmp_engine_fd);
    add(c, "-mon");
    add(c, "chardev=qmp-engine,mode=control");
    add(c, "-chardev");
    add(c, "socket,id=serial,fd=%d,server=on,wait=off,logfile=%s,logappend=on", o->serial_fd, log);
    add(c, "-serial");
    add(c, "chardev:serial");
}

static void add_blockdev(struct command *c, json_t *options)
{
    char *text = options ? json_dumps(options, JSON_COMPACT) : NULL;
    ENSURE(text != NULL);
    json_decref(options);
    add(c, "-blockdev");
    add(c, "%s", text);
    free(text);
}

static int disk_direct(const Drover__Disk *disk)
{
    return strcmp(disk->cache, "none") == 0;
}

static json_t *disk_file(const Drover__Disk *disk)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:b, s:{s:b, s:b}}", "driver", "file", "filename", disk->path, "locking",
        "on", "aio", disk->aio[0] ? disk->aio : "threads", "read-only", disk->read_only, "cache", "direct",
        disk_direct(disk), "no-flush", 0);
}

static json_t *disk_format(const Drover__Disk *disk, const char *node, json_t *file)
{
    return json_pack("{s:s, s:s, s:o, s:b, s:{s:b, s:b}}", "driver", disk->format[0] ? disk->format : "raw",
        "node-name", node, "file", file, "read-only", disk->read_only, "cache", "direct", disk_direct(disk), "no-flush",
        0);
}

json_t *command_disk_node(const Drover__Disk *disk, const char *node)
{
    json_t *file = disk_file(disk);
    json_object_set_new(file, "discard", json_string("unmap"));
    json_t *format = disk_format(disk, node, file);
    json_object_set_new(format, "discard", json_string("unmap"));
    return format;
}

/* Unless asked otherwise, the page cache is on: the kernel then copies data into guest memory with ordinary writes.
 * Direct I/O costs a migration its drains (migrate/source_collect.c). */
static void add_disk(struct command *c, const Drover__Disk *disk, size_t i, bool boots, bool comes)
{
    char file[32], node[32];
    const char *discard = comes ? "unmap" : "ignore"; /* zeros that arrive need no room in the file */
    snprintf(file, sizeof file, "disk%zu-file", i);
    snprintf(node, sizeof node, "disk%zu", i);
    json_t *below = disk_file(disk);
    json_object_set_new(below, "node-name", json_string(file));
    json_object_set_new(below, "discard", json_string(discard));
    json_t *format = disk_format(disk, node, json_string(file));
    json_object_set_new(format, "discard", json_string(discard));
    add_blockdev(c, below);
    add_blockdev(c, format);
    add(c, "-device");
    add(c, "virtio-blk-pci,id=vdisk%zu,drive=%s,bus=pcie.0,addr=0x%zx,write-cache=on%s", i, node, PCI_DISK + i,
        boots ? ",bootindex=0" : "");
}

/* The engine announces the guest after a move. If the guest did it, too, its first instructions on the new host would
 * go into that instead of into what it is asked. */
static void add_nic(struct command *c, const Drover__Nic *nic, const char *tap, size_t i)
{
    add(c, "-netdev");
    add(c, "tap,id=net%zu,ifname=%s,script=no,downscript=no,vhost=off", i, tap);
    add(c, "-device");
    add(c, "virtio-net-pci,id=vnic%zu,netdev=net%zu,mac=%s,bus=pcie.0,addr=0x%zx,romfile=,guest_announce=off", i, i,
        nic->mac, PCI_NIC + i);
}

char **command_build(const struct command_config *o)
{
    struct command c = {mem_zalloc(COMMAND_ARGS_MAX * sizeof(char *)), 0};
    add(&c, "%s", o->program);
    add(&c, "-no-user-config");
    add(&c, "-nodefaults");
    add(&c, "-display");
    add(&c, "none");
    add(&c, "-sandbox");
    add(&c, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    add_machine(&c, o);
    add_channels(&c, o);
    for (size_t i = 0; i < o->spec->n_nics; i++)
        add_nic(&c, o->spec->nics[i], o->taps[i], i);
    for (size_t i = 0; i < o->spec->n_disks; i++)
        add_disk(
            &c, o->spec->disks[i], i, i == 0 && !o->spec->kernel[0], o->disks_come && !o->spec->disks[i]->read_only);
    if (o->spec->balloon) {
        add(&c, "-device");
        add(&c, "virtio-balloon-pci,id=balloon,bus=pcie.0,addr=0x%x,free-page-reporting=on", PCI_BALLOON);
    }
    if (o->incoming) {
        add(&c, "-incoming");
        add(&c, "defer");
        add(&c, "-S");
    }
    return c.argv;
}

void command_free(char **argv)
{
    for (char **arg = argv; arg && *arg; arg++)
        free(*arg);
    free(argv);
}
