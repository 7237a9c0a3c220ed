#include "migrate/record.h"

#include <jansson.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/file.h"

typedef int (*put_fn)(const char *path, const void *data, size_t len, mode_t mode, struct err *err);

static int record_put(const char *path, const char *phase, json_t *record, put_fn put, struct err *err)
{
    cleanup_free char *text = json_dumps(record, JSON_COMPACT);
    json_decref(record);
    ENSURE(text != NULL);
    crashpoint("record.before", phase);
    int rc = put(path, text, strlen(text), 0600, err);
    crashpoint("record.after", phase);
    return rc;
}

int record_write(const char *path, const char *migration_id, const char *phase, struct err *err)
{
    return record_put(
        path, phase, json_pack("{s:s, s:s}", "migration", migration_id, "phase", phase), file_replace, err);
}

int record_write_lasting(const char *path, const char *migration_id, const char *phase, struct err *err)
{
    return record_put(path, phase, json_pack("{s:s, s:s}", "migration", migration_id, "phase", phase), file_write, err);
}

int record_write_postcopy(const char *path, const char *migration_id, const char *phase, struct err *err)
{
    return record_put(path, phase,
        json_pack("{s:s, s:s, s:b}", "migration", migration_id, "phase", phase, "postcopy", 1), file_replace, err);
}

bool record_says(const char *path, const char *migration_id, const char *phase)
{
    json_t *record = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    const char *id = json_string_value(json_object_get(record, "migration"));
    const char *found = json_string_value(json_object_get(record, "phase"));
    bool says = id && found && strcmp(id, migration_id) == 0 && strcmp(found, phase) == 0;
    json_decref(record);
    return says;
}
