#include "hostd/partition/paths.h"

#include <stdio.h>
#include <string.h>

#include "base/ensure.h"

static const char *const names[] = {
    [PATH_RECORD] = "partition.json",
    [PATH_QMP] = "qmp.sock",
    [PATH_QMP_ENGINE] = "qmp-engine.sock",
    [PATH_SERIAL] = "serial.sock",
    [PATH_SERIAL_LOG] = "serial.log",
    [PATH_QEMU_LOG] = "qemu.log",
    [PATH_ENGINE_CONFIG] = "engine.ini",
    [PATH_ENGINE_CONTROL] = "eng.sock",
    [PATH_ENGINE_STATE] = "eng.sock.state",
    [PATH_ENGINE_DISKS] = "eng.sock.nbd",
    [PATH_ENGINE_RECORD] = "engine.record",
    [PATH_ENGINE_PREPARED] = "engine.record.failed",
    [PATH_ENGINE_LOG] = "engine.log",
    [PATH_ADDRESSES] = "addresses",
};

bool paths_vm_id_ok(const char *id)
{
    if (strlen(id) != 36)
        return false;
    for (int i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? id[i] != '-' : !strchr("0123456789abcdef", id[i]))
            return false;
    }
    return true;
}

bool paths_migration_id_ok(const char *id)
{
    size_t len = strlen(id);
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    return len > 0 && len < PATHS_ID_MAX && id[0] != '.' && strspn(id, allowed) == len;
}

static const char *path_print(char out[static PATH_MAX], const char *directory, const char *middle, const char *name)
{
    int n = snprintf(out, PATH_MAX, "%s%s/%s", directory, middle, name);
    ENSURE(n > 0 && n < PATH_MAX); /* directories are bounded when the configuration is read */
    return out;
}

const char *paths_directory(const char *host_directory, const char *vm_id, char out[static PATH_MAX])
{
    return path_print(out, host_directory, "/partitions", vm_id);
}

const char *paths_file(const char *directory, enum path_file file, char out[static PATH_MAX])
{
    return path_print(out, directory, "", names[file]);
}

const char *paths_ram(const char *memory_directory, const char *vm_id, char out[static PATH_MAX])
{
    char name[64];
    snprintf(name, sizeof name, "%s.ram", vm_id);
    return path_print(out, memory_directory, "", name);
}
