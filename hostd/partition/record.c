#include "hostd/partition/record.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/file.h"
#include "hostd/partition/spec.h"

#define RECORD_BYTES_MAX (256u << 10)
#define RECORD_VERSION   1

static json_t *process_json(struct process_id id)
{
    return json_pack("{s:I, s:I}", "pid", (json_int_t)id.pid, "start_ticks", (json_int_t)id.start_ticks);
}

char *record_format(const struct record *r)
{
    json_t *json = json_pack("{s:i, s:s, s:I, s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:s}", "version", RECORD_VERSION,
        "vm_id", r->vm_id, "generation", (json_int_t)r->generation, "state", state_name(r->state), "boot_id",
        r->boot_id, "guest", process_json(r->guest), "spec", spec_to_json(r->spec), "uptime_base_ms",
        (json_int_t)r->uptime_base_ms, "uptime_from_ms", (json_int_t)r->uptime_from_ms, "stop_by_ms",
        (json_int_t)r->stop_by_ms, "detail", r->detail);
    ENSURE(json != NULL);
    const struct record_migration *m = &r->migration;
    if (m->id[0]) {
        json_t *migration = json_pack("{s:s, s:b, s:b, s:I, s:I, s:s, s:s, s:o}", "id", m->id, "incoming", m->incoming,
            "disks", m->disks, "generation", (json_int_t)m->generation, "bandwidth_bytes_per_s",
            (json_int_t)m->bandwidth_bytes_per_s, "to_host", m->to_host, "address", m->address, "engine",
            process_json(m->engine));
        ENSURE(migration != NULL);
        json_object_set_new(json, "migration", migration);
    }
    const struct record_storage *s = &r->storage;
    if (s->id[0]) {
        json_t *storage = json_pack("{s:s, s:I, s:s, s:s, s:s, s:b, s:I, s:I, s:I}", "id", s->id, "disk",
            (json_int_t)s->disk, "source", s->source, "target", s->target, "format", s->format, "shallow", s->shallow,
            "bandwidth_bytes_per_s", (json_int_t)s->bandwidth_bytes_per_s, "file_system",
            (json_int_t)s->where.file_system, "inode", (json_int_t)s->where.inode);
        ENSURE(storage != NULL);
        json_object_set_new(json, "storage", storage);
    }
    char *text = json_dumps(json, JSON_INDENT(2));
    ENSURE(text != NULL);
    json_decref(json);
    return text;
}

static int take_text(const char *what, const char *text, size_t size, struct err *err, char *out)
{
    if (strlen(text) >= size)
        return err_set(err, ERR_INVALID, "%s is longer than %zu bytes", what, size - 1);
    strcpy(out, text);
    return 0;
}

static int parse_process(const json_t *json, struct err *err, struct process_id *out)
{
    json_int_t pid, ticks;
    if (json_unpack((json_t *)json, "{s:I, s:I}", "pid", &pid, "start_ticks", &ticks) < 0 || pid < 0 ||
        pid > INT32_MAX || pid == 1 || ticks < 0)
        return err_set(err, ERR_INVALID, "a process is not {pid, start_ticks}");
    *out = (struct process_id){(pid_t)pid, (uint64_t)ticks};
    return 0;
}

static int parse_migration(json_t *json, struct err *err, struct record_migration *out)
{
    const char *id, *to_host, *address;
    json_int_t generation, bandwidth = 0;
    int incoming, disks = 0;
    json_t *engine;
    json_error_t why;
    if (json_unpack_ex(json, &why, 0, "{s:s, s:b, s?b, s:I, s?I, s:s, s:s, s:o}", "id", &id, "incoming", &incoming,
            "disks", &disks, "generation", &generation, "bandwidth_bytes_per_s", &bandwidth, "to_host", &to_host,
            "address", &address, "engine", &engine) < 0)
        return err_set(err, ERR_INVALID, "migration: %s", why.text);
    if (!paths_migration_id_ok(id) || generation < 1 || bandwidth < 0)
        return err_set(err, ERR_INVALID, "migration: bad id, generation or bandwidth");
    out->bandwidth_bytes_per_s = (uint64_t)bandwidth;
    out->incoming = incoming != 0;
    out->disks = disks != 0;
    out->generation = (uint64_t)generation;
    if (take_text("migration.id", id, sizeof out->id, err, out->id) < 0 ||
        take_text("migration.to_host", to_host, sizeof out->to_host, err, out->to_host) < 0 ||
        take_text("migration.address", address, sizeof out->address, err, out->address) < 0 ||
        parse_process(engine, err, &out->engine) < 0)
        return -1;
    return 0;
}

static int parse_storage(json_t *json, struct err *err, struct record_storage *out)
{
    const char *id, *source, *target, *format;
    json_int_t disk, bandwidth, file_system = 0, inode = 0;
    int shallow;
    json_error_t why;
    if (json_unpack_ex(json, &why, 0, "{s:s, s:I, s:s, s:s, s:s, s:b, s:I, s?I, s?I}", "id", &id, "disk", &disk,
            "source", &source, "target", &target, "format", &format, "shallow", &shallow, "bandwidth_bytes_per_s",
            &bandwidth, "file_system", &file_system, "inode", &inode) < 0)
        return err_set(err, ERR_INVALID, "storage: %s", why.text);
    if (!paths_vm_id_ok(id) || disk < 0 || disk >= SPEC_DISKS_MAX || bandwidth < 0)
        return err_set(err, ERR_INVALID, "storage: bad id, disk or bandwidth");
    out->disk = (uint32_t)disk;
    out->where = (struct place_where){(uint64_t)file_system, (uint64_t)inode};
    out->shallow = shallow != 0;
    out->bandwidth_bytes_per_s = (uint64_t)bandwidth;
    if (take_text("storage.id", id, sizeof out->id, err, out->id) < 0 ||
        take_text("storage.source", source, sizeof out->source, err, out->source) < 0 ||
        take_text("storage.target", target, sizeof out->target, err, out->target) < 0 ||
        take_text("storage.format", format, sizeof out->format, err, out->format) < 0)
        return -1;
    return 0;
}

static int parse_fields(json_t *json, struct err *err, struct record *out)
{
    const char *vm_id, *state, *boot_id, *detail;
    json_int_t version, generation, uptime_base, uptime_from, stop_by;
    json_t *guest, *spec, *migration = NULL, *storage = NULL;
    json_error_t why;
    if (json_unpack_ex(json, &why, 0, "{s:I, s:s, s:I, s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:s, s?o, s?o}", "version",
            &version, "vm_id", &vm_id, "generation", &generation, "state", &state, "boot_id", &boot_id, "guest", &guest,
            "spec", &spec, "uptime_base_ms", &uptime_base, "uptime_from_ms", &uptime_from, "stop_by_ms", &stop_by,
            "detail", &detail, "migration", &migration, "storage", &storage) < 0)
        return err_set(err, ERR_INVALID, "%s", why.text);
    if (version != RECORD_VERSION)
        return err_set(err, ERR_UNSUPPORTED, "version %lld is not %d", (long long)version, RECORD_VERSION);
    int number = state_parse(state);
    if (!paths_vm_id_ok(vm_id) || generation < 1 || number <= STATE_NONE || uptime_base < 0 || uptime_from < 0 ||
        stop_by < 0)
        return err_set(err, ERR_INVALID, "bad vm_id, generation, state or uptime");
    out->generation = (uint64_t)generation;
    out->state = (enum partition_state)number;
    out->uptime_base_ms = (uint64_t)uptime_base;
    out->uptime_from_ms = (uint64_t)uptime_from;
    out->stop_by_ms = (uint64_t)stop_by;
    if (take_text("vm_id", vm_id, sizeof out->vm_id, err, out->vm_id) < 0 ||
        take_text("boot_id", boot_id, sizeof out->boot_id, err, out->boot_id) < 0 ||
        take_text("detail", detail, sizeof out->detail, err, out->detail) < 0 ||
        parse_process(guest, err, &out->guest) < 0 ||
        (migration && parse_migration(migration, err, &out->migration) < 0) ||
        (storage && parse_storage(storage, err, &out->storage) < 0))
        return -1;
    bool needs_migration = out->state == STATE_INCOMING || out->state == STATE_OUTGOING || out->state == STATE_IN_DOUBT;
    if (needs_migration && !migration)
        return err_set(err, ERR_INVALID, "state %s without a migration", state);
    if (spec_from_json(spec, err, &out->spec) < 0)
        return -1;
    if (storage && out->storage.disk >= out->spec->n_disks)
        return err_set(err, ERR_INVALID, "storage: there is no disk %u", out->storage.disk);
    return 0;
}

int record_parse(const char *text, size_t len, struct err *err, struct record *out)
{
    json_error_t why;
    json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!json)
        return err_set(err, ERR_INVALID, "line %d: %s", why.line, why.text);
    struct record record = {0};
    int rc = parse_fields(json, err, &record);
    json_decref(json);
    if (rc < 0) {
        record_clear(&record);
        return -1;
    }
    *out = record;
    return 0;
}

void record_clear(struct record *record)
{
    if (record->spec)
        drover__vm_spec__free_unpacked(record->spec, NULL);
    *record = (struct record){0};
}

int record_save(const char *path, const struct record *record, struct err *err)
{
    cleanup_free char *text = record_format(record);
    return file_write(path, text, strlen(text), 0600, err);
}

int record_load(const char *path, struct err *err, struct record *out)
{
    cleanup_buf struct buf text = {0};
    if (file_read(path, RECORD_BYTES_MAX, err, &text) < 0)
        return -1;
    if (record_parse(buf_str(&text), text.len, err, out) < 0)
        return err_wrap(err, "%s", path);
    return 0;
}
