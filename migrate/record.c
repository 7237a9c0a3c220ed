#include "migrate/record.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/file.h"

static char *record_text(const char *migration_id, const char *phase, bool postcopy)
{
    json_t *record = json_pack("{s:s, s:s}", "migration", migration_id, "phase", phase);
    if (postcopy)
        json_object_set_new(record, "postcopy", json_true());
    char *text = json_dumps(record, JSON_COMPACT);
    json_decref(record);
    ENSURE(text != NULL);
    return text;
}

static int record_put(const char *path, const char *migration_id, const char *phase, bool postcopy, struct err *err)
{
    cleanup_free char *text = record_text(migration_id, phase, postcopy);
    crashpoint("record.before", phase);
    int rc = file_replace(path, text, strlen(text), 0600, err);
    crashpoint("record.after", phase);
    return rc;
}

int record_write(const char *path, const char *migration_id, const char *phase, struct err *err)
{
    return record_put(path, migration_id, phase, false, err);
}

int record_write_postcopy(const char *path, const char *migration_id, const char *phase, struct err *err)
{
    return record_put(path, migration_id, phase, true, err);
}

#define FAILED "failed"

static const char *prepared_path(const char *path, char out[static PATH_MAX])
{
    return snprintf(out, PATH_MAX, "%s.%s", path, FAILED) < PATH_MAX ? out : "";
}

int record_prepare_failed(const char *path, const char *migration_id, struct err *err)
{
    char prepared[PATH_MAX];
    cleanup_free char *text = record_text(migration_id, FAILED, false);
    return file_replace(prepared_path(path, prepared), text, strlen(text), 0600, err);
}

int record_take_back(const char *path, const char *migration_id, struct err *err)
{
    char prepared[PATH_MAX];
    int rc;
    crashpoint("record.before", FAILED);
    /* Renamed already, where only the directory was not written; else somebody has removed it. */
    if (rename(prepared_path(path, prepared), path) == 0 || record_says(path, migration_id, FAILED)) {
        rc = file_sync_parent(path, err);
    } else {
        cleanup_free char *text = record_text(migration_id, FAILED, false);
        rc = file_write(path, text, strlen(text), 0600, err);
    }
    crashpoint("record.after", FAILED);
    return rc;
}

void record_unprepare(const char *path)
{
    char prepared[PATH_MAX];
    unlink(prepared_path(path, prepared));
}

static bool record_match(const char *path, const char *migration_id, const char *phase, bool postcopy)
{
    json_t *record = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    const char *id = json_string_value(json_object_get(record, "migration"));
    const char *found = json_string_value(json_object_get(record, "phase"));
    bool match = id && found && strcmp(id, migration_id) == 0 && strcmp(found, phase) == 0 &&
                 (!postcopy || json_is_true(json_object_get(record, "postcopy")));
    json_decref(record);
    return match;
}

bool record_says(const char *path, const char *migration_id, const char *phase)
{
    return record_match(path, migration_id, phase, false);
}

bool record_fetching(const char *path, const char *migration_id)
{
    return record_match(path, migration_id, "owner", true);
}
