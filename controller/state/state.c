/* The database as a whole: made, copied out, replaced, compared. */
#include "controller/state/state.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/ensure.h"
#include "controller/state/sql.h"
#include "controller/state/version.h"

/* What a snapshot begins with; the database file follows. */
struct snapshot_header {
    char magic[8];
    uint32_t schema;
    uint32_t reserved;
    uint64_t database_bytes;
};
static const char snapshot_magic[8] = "DRVRST1";

struct state *state_new(void)
{
    struct state *state = mem_zalloc(sizeof *state);
    state->db = sql_open();
    schema_create(state);
    return state;
}

void state_free(struct state *state)
{
    if (!state)
        return;
    sql_forget(state);
    ENSURE(sqlite3_close(state->db) == SQLITE_OK);
    free(state);
}

/* What an older program would go on from in a way of its own, it must not take. */
static uint32_t snapshot_version(struct state *state)
{
    struct state_job_ref *jobs;
    uint32_t version = 1;
    if (sql_number(state, "SELECT count(*) FROM settings WHERE name GLOB 'host.maintenance.*'", ""))
        version = VERSION_MAINTENANCE;
    size_t count = state_jobs_active(state, &jobs);
    for (size_t i = 0; i < count; i++) {
        struct state_job job;
        ENSURE(state_job(state, jobs[i].id, &job));
        uint32_t needs = version_of_job(job.job->kind, job.data);
        version = needs > version ? needs : version;
        state_job_clear(&job);
    }
    free(jobs);
    return version;
}

void state_snapshot(struct state *state, struct buf *out)
{
    sqlite3_int64 size = 0;
    unsigned char *data = sqlite3_serialize(state->db, "main", &size, 0);
    ENSURE(data != NULL && size > 0);
    struct snapshot_header header = {.schema = snapshot_version(state), .database_bytes = (uint64_t)size};
    memcpy(header.magic, snapshot_magic, sizeof header.magic);
    buf_append(out, &header, sizeof header);
    buf_append(out, data, (size_t)size);
    sqlite3_free(data);
}

/* Checks what a foreign file could get wrong before any statement of ours runs on it. */
static int snapshot_check(sqlite3 *db, struct err *err)
{
    sqlite3_stmt *check = NULL;
    bool sound = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &check, NULL) == SQLITE_OK &&
                 sqlite3_step(check) == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(check, 0), "ok") == 0;
    sqlite3_finalize(check);
    if (!sound)
        return err_set(err, ERR_CORRUPT, "snapshot: the database in it is damaged");
    return 0;
}

static void database_copy(sqlite3 *from, sqlite3 *to)
{
    sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
    ENSURE(backup != NULL);
    ENSURE(sqlite3_backup_step(backup, -1) == SQLITE_DONE);
    ENSURE(sqlite3_backup_finish(backup) == SQLITE_OK);
}

int state_restore(struct state *state, const uint8_t *data, size_t len, struct err *err)
{
    struct snapshot_header header;
    if (len < sizeof header)
        return err_set(err, ERR_CORRUPT, "snapshot: only %zu bytes", len);
    memcpy(&header, data, sizeof header);
    if (memcmp(header.magic, snapshot_magic, sizeof header.magic) != 0 || header.database_bytes != len - sizeof header)
        return err_set(err, ERR_CORRUPT, "snapshot: not one of ours, or cut");
    if (header.schema > STATE_SCHEMA)
        return err_set(err, ERR_UNSUPPORTED,
            "snapshot: schema %u is newer than this program's %u; install the version the other members run",
            header.schema, STATE_SCHEMA);

    /* A deserialized database stays on the slow VFS that serves it from one block; the backup makes it an ordinary one.
     */
    size_t size = len - sizeof header;
    unsigned char *copy = sqlite3_malloc64(size);
    ENSURE(copy != NULL);
    memcpy(copy, data + sizeof header, size);
    sqlite3 *source = sql_open();
    unsigned flags = SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_READONLY;
    if (sqlite3_deserialize(source, "main", copy, (sqlite3_int64)size, (sqlite3_int64)size, flags) != SQLITE_OK ||
        snapshot_check(source, err) < 0) {
        sqlite3_close(source);
        return err_set(err, ERR_CORRUPT, "snapshot: the database in it is damaged");
    }
    sql_forget(state);
    ENSURE(sqlite3_close(state->db) == SQLITE_OK);
    state->db = sql_open();
    database_copy(source, state->db);
    ENSURE(sqlite3_close(source) == SQLITE_OK);
    return 0;
}

static void hash_row(XXH3_state_t *hash, sqlite3_stmt *row)
{
    for (int i = 0; i < sqlite3_column_count(row); i++) {
        int32_t type = sqlite3_column_type(row, i);
        XXH3_64bits_update(hash, &type, sizeof type);
        if (type == SQLITE_INTEGER) {
            int64_t value = sqlite3_column_int64(row, i);
            XXH3_64bits_update(hash, &value, sizeof value);
        } else if (type != SQLITE_NULL) {
            const void *data = sqlite3_column_blob(row, i);
            int32_t len = sqlite3_column_bytes(row, i);
            XXH3_64bits_update(hash, &len, sizeof len);
            if (len)
                XXH3_64bits_update(hash, data, (size_t)len);
        }
    }
}

uint64_t state_hash(struct state *state)
{
    XXH3_state_t *hash = XXH3_createState();
    ENSURE(hash != NULL);
    XXH3_64bits_reset(hash);
    for (size_t i = 0; schema_tables[i]; i++) {
        char text[128];
        snprintf(text, sizeof text, "SELECT * FROM %s ORDER BY 1, 2", schema_tables[i]);
        sqlite3_stmt *rows = NULL;
        ENSURE(sqlite3_prepare_v2(state->db, text, -1, &rows, NULL) == SQLITE_OK);
        while (sqlite3_step(rows) == SQLITE_ROW)
            hash_row(hash, rows);
        sqlite3_finalize(rows);
    }
    uint64_t digest = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    return digest;
}
