#include "migrate/record.h"

#include <jansson.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/file.h"

int record_write(const char *path, const char *migration_id, const char *phase, struct err *err)
{
    json_t *record = json_pack("{s:s, s:s}", "migration", migration_id, "phase", phase);
    cleanup_free char *text = json_dumps(record, JSON_COMPACT);
    json_decref(record);
    ENSURE(text != NULL);
    return file_write(path, text, strlen(text), 0600, err);
}
